"""Methods that remember samples of medbolt-noisy on two processes: what one does, or the same on both."""

from typing import Any

import pytest
import torch
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

import medbolt.noisy.memorizing.disc as disc
import medbolt.noisy.memorizing.sample_selection_and_relabelling as ssr
from medbolt.core import ObjectiveCallback, RandomState
from medbolt.noisy import (
    DISC,
    EarlyLearningRegularization,
    EarlyLearningRegularizationPlus,
    MixUp,
    SampleSelectionAndRelabelling,
    SelfEnsembleLabelCorrection,
    SparseOverParameterization,
)

pytestmark = pytest.mark.ddp


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


class LargeSparse(SparseOverParameterization):
    """Begins with u and v large enough to matter."""

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            generator = torch.Generator().manual_seed(5)
            for name in ("u", "v"):
                self.memory[name].normal_(0, 0.5, generator=generator)


class Sorted(DISC):
    """Sorts by place, so that processes keep samples of different numbers in a batch."""

    def begin_epoch(self, trainer, pl_module):
        place = torch.arange(len(self.memory))
        self.memory["clean"].copy_(place % 5 == 0)
        self.memory["hard"].copy_(place % 5 == 1)
        self.memory["purified"].copy_((place % 5 == 2) & (place > 12))
        self.memory["corrected"].copy_(place % 2)


SAME: dict[str, Any] = {
    "elr": EarlyLearningRegularization,
    "selc": lambda: SelfEnsembleLabelCorrection(1),
    "sop": lambda: LargeSparse(consistency=0.9, strong=nn.Hardshrink(0.3)),
    "disc, sorted": lambda: Sorted(0, strong=nn.Hardshrink(0.3)),
    "disc": lambda: DISC(1, momentum=0.5, sigma=0.1, strong=nn.Hardshrink(0.3)),
    "ssr+": lambda: SampleSelectionAndRelabelling(0.5, neighbours=3, consistency=1.0, strong=nn.Hardshrink(0.3)),
}
AGREE: dict[str, Any] = {
    "elr+": EarlyLearningRegularizationPlus,
    "mixup": lambda: [MixUp(), EarlyLearningRegularization()],
}


def fitted(make: Any, module: ToyClassifier, epochs: int) -> dict[str, Any]:
    made = make()
    callbacks: list[ObjectiveCallback] = made if isinstance(made, list) else [made]
    fit = trainer(RandomState(7), *callbacks, epochs=epochs)
    fit.fit(module, datamodule=ToyImages(batch_size=8 // trainer().world_size))
    (memory,) = [c.memory for c in callbacks if c.memory is not None]
    found = {"weights": weights(module), "memory": memory.fields | {"seen": memory.seen}}
    averages = [weights(network) for network in getattr(callbacks[0], "averages", [])]
    return found | {"averages": averages}


def everything() -> dict[str, Any]:
    drawn = disc.drawn_weights
    # processes mix within their own batches: mix nothing
    disc.drawn_weights = ssr.drawn_weights = lambda *args: torch.tensor([1.0])
    found = {name: fitted(make, Plain(), epochs=2) for name, make in SAME.items()}
    disc.drawn_weights = ssr.drawn_weights = drawn
    return found | {name: fitted(make, ToyClassifier(), epochs=2) for name, make in AGREE.items()}


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


@pytest.mark.parametrize("name", SAME)
def test_two_processes_do_what_one_does(results, name):
    one, two = results
    for process in two:
        torch.testing.assert_close(process[name]["memory"], one[name]["memory"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(process[name]["weights"], one[name]["weights"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", AGREE)
def test_two_processes_agree(results, name):
    for key in ("memory", "averages"):
        first, second = (process[name][key] for process in results[1])
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert results[1][0]["elr+"]["averages"][0].ne(0).any()

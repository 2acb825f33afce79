"""Methods that remember samples of medbolt-noisy on two processes: what one does, or the same on both."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from processes import run
from torch import nn
from torch.nn.functional import one_hot
from toys import ToyClassifier, ToyImages, trainer, weights

import medbolt.core.objective.mixup as mixup
import medbolt.noisy.memorizing.partial as partial
import medbolt.noisy.memorizing.sample_selection_and_relabelling as ssr
from medbolt.core import ImageDataset, ObjectiveCallback, RandomState
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
    "elr+, unmixed": EarlyLearningRegularizationPlus,
}
AGREE: dict[str, Any] = {
    "elr+": EarlyLearningRegularizationPlus,
    "disc, share": lambda: DISC(1, momentum=0.5, sigma=0.1, strong=nn.Hardshrink(0.3), share=0.5),
    "mixup": lambda: [MixUp(), EarlyLearningRegularization()],
}


def fitted(make: Any, module: ToyClassifier, epochs: int) -> dict[str, Any]:
    made = make()
    callbacks: list[ObjectiveCallback] = made if isinstance(made, list) else [made]
    fit = trainer(RandomState(7), *callbacks, epochs=epochs)
    fit.fit(module, datamodule=ToyImages(batch_size=8 // trainer().world_size))
    (memory,) = [c.memory for c in callbacks if c.memory is not None]
    found = {"weights": weights(module), "memory": memory.fields | {"seen": memory.seen}}
    peer = getattr(callbacks[0], "peer", None)
    others = [*getattr(callbacks[0], "averages", []), *([] if peer is None else [peer])]
    return found | {"others": [weights(network) for network in others]}


def everything() -> dict[str, Any]:
    drawn = mixup.drawn_weights
    # processes mix within their own batches: mix nothing
    mixup.drawn_weights = partial.drawn_weights = ssr.drawn_weights = lambda *args: torch.tensor([1.0])
    found = {name: fitted(make, Plain(), epochs=2) for name, make in SAME.items()}
    mixup.drawn_weights = partial.drawn_weights = ssr.drawn_weights = drawn
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
        torch.testing.assert_close(process[name], one[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", AGREE)
def test_two_processes_agree(results, name):
    for key in ("memory", "others"):
        first, second = (process[name][key] for process in results[1])
        torch.testing.assert_close(first, second, rtol=0, atol=0)
    assert results[1][0]["elr+"]["others"][0].ne(0).any()


class OneHot(ToyImages):
    """Targets are distributions, so labels are known of samples seen only."""

    def load(self, split):
        dataset = super().load(split)
        return ImageDataset(dataset.images, one_hot(dataset.targets, 3).float(), dataset.ids)


class Decisions(Callback):
    """Keeps the memory as the third epoch begins."""

    def __init__(self, method: ObjectiveCallback) -> None:
        self.method, self.memory = method, {}

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if (trainer.current_epoch, batch_idx) == (2, 0):
            memory = self.method.memory
            self.memory = {k: v.clone() for k, v in (memory.fields | {"seen": memory.seen}).items()}


PARTLY_SEEN: dict[str, Any] = {
    "disc": (lambda: DISC(0, sigma=0.0, momentum=0.5, strong=nn.Hardshrink(0.3)), ToyImages),
    "ssr": (lambda: SampleSelectionAndRelabelling(0.5, neighbours=3), ToyImages),
    "ssr, one-hot": (lambda: SampleSelectionAndRelabelling(0.5, neighbours=3), OneHot),
}


def partly_seen() -> dict[str, tuple[dict[str, torch.Tensor], list[int]]]:
    found = {}
    for name, (make, data) in PARTLY_SEEN.items():
        module, method = Plain(), make()
        decisions = Decisions(method)
        fit = trainer(RandomState(7), method, decisions, epochs=3, limit_val_batches=0)
        fit.fit(module, datamodule=data({"train": 21}, batch_size=4))  # an epoch takes two batches a process, 16 of 21
        found[name] = decisions.memory, [i for epoch, _, index in module.seen if epoch < 2 for i in index]
    return found


@pytest.fixture(scope="module")
def memories() -> dict[str, dict[str, torch.Tensor]]:
    """What both processes remember where samples are left out of epochs; ``truth`` is the labels."""
    both, found = run(partly_seen), {}
    for name in PARTLY_SEEN:
        (first, drawn), (second, others) = (process[name] for process in both)
        torch.testing.assert_close(first, second, rtol=0, atol=0)
        assert set(first["seen"].nonzero().flatten().tolist()) == {*drawn, *others}
        assert len({*drawn, *others}) < 21
        found[name] = first | {"truth": torch.arange(21) % 3}
    return found


def test_disc_takes_samples_it_has_not_seen_as_clean(memories):
    memory = memories["disc"]
    seen, sorts = memory["seen"], torch.stack([memory[name] for name in ("clean", "hard", "purified")])
    assert torch.equal(memory["label"], torch.where(seen, memory["truth"], -1))
    assert sorts[:, seen].any()
    assert sorts[0, ~seen].all()
    assert not sorts[1:, ~seen].any()
    for view in ("weak", "strong"):
        assert torch.equal(memory[view].any(1), seen)
        assert torch.equal(memory[f"{view}_threshold"] != torch.tensor(1 / 21), seen)


def test_ssr_judges_unseen_samples_by_the_labels_of_the_data(memories):
    assert torch.equal(memories["ssr"]["given"], memories["ssr"]["truth"])


def test_ssr_keeps_samples_whose_label_it_has_not_seen(memories):
    memory = memories["ssr, one-hot"]
    seen = memory["seen"]
    assert torch.equal(memory["given"], torch.where(seen, memory["truth"], -1))
    assert (memory["weight"][seen] == 0).any()
    assert (memory["label"][seen] >= 0).any()
    assert (memory["weight"][~seen] == 1).all()
    assert (memory["label"][~seen] == -1).all()

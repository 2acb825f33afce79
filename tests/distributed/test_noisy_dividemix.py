"""DivideMix and UNICON on two processes: the same samples labelled as on one, and everything alike on both."""

import os
from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from processes import run
from torch import nn
from toys import ToyImages, trainer, weights

import medbolt.noisy.dividemix.two_networks as two_networks
from medbolt.noisy import UNICON, DivideMix, NoisyLabels, SymmetricNoise

pytestmark = pytest.mark.ddp


class Counts(Callback):
    """Keeps how many samples of each batch are labelled, and the memory of the first epoch with a choice."""

    def __init__(self) -> None:
        self.first: dict[str, torch.Tensor] = {}
        self.kept: list[int] = []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        if trainer.current_epoch == 1:
            self.first = dict(pl_module.split.memory.fields)
        self.kept.append(int(pl_module.selection.kept.sum()))


TASKS: dict[str, Any] = {"dividemix": partial(DivideMix, averaged_epochs=2), "unicon": UNICON}
UNMIXED: dict[str, Any] = {
    # without what is of a process's own batch: mixtures, the mean prediction, contrasts
    "dividemix, unmixed": partial(DivideMix, averaged_epochs=2, prior=None),
    "unicon, unmixed": partial(UNICON, contrastive_weight=0.0, prior=None),
}


def fitted(make: Any) -> dict[str, Any]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    batch = 12 // int(os.environ.get("WORLD_SIZE", "1"))
    data = NoisyLabels(ToyImages({"train": 48}, batch_size=batch), SymmetricNoise(0.4))
    task = make(network, 3, 1, rampup_epochs=1, optimizer=lambda p: torch.optim.SGD(p, 0.1, momentum=0.9))
    counts = Counts()
    trainer(counts, epochs=4, limit_val_batches=0).fit(task, data)
    return {
        "weights": weights(task),
        "first": counts.first,
        "last": dict(task.split.memory.fields),
        "kept": counts.kept,
    }


def everything() -> dict[str, dict[str, Any]]:
    found = {name: fitted(make) for name, make in TASKS.items()}
    two_networks.mixed = lambda images, target, *args: (images, target)
    return found | {name: fitted(make) for name, make in UNMIXED.items()}


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


@pytest.mark.parametrize("name", TASKS)
def test_two_processes_label_the_samples_that_one_does(results, name):
    one, two = results[0][name], [process[name] for process in results[1]]
    assert one["first"]["labelled"].any()
    assert not one["first"]["labelled"].all()
    for process in two:
        assert torch.equal(process["first"]["labelled"], one["first"]["labelled"])
        for field in one["first"].keys() - {"labelled"}:
            torch.testing.assert_close(process["first"][field], one["first"][field], equal_nan=True, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", UNMIXED)
def test_two_processes_learn_what_one_does_where_nothing_is_mixed(results, name):
    one, two = results
    for process in two:
        torch.testing.assert_close(process[name]["weights"], one[name]["weights"], rtol=1e-4, atol=1e-5)
        assert torch.equal(process[name]["last"]["labelled"], one[name]["last"]["labelled"])


@pytest.mark.parametrize("name", TASKS)
def test_processes_stay_alike_where_batches_differ_in_their_labelled_samples(results, name):
    first, second = (process[name] for process in results[1])
    assert torch.equal(first["weights"], second["weights"])
    assert first["weights"].isfinite().all()
    torch.testing.assert_close(first["last"], second["last"], rtol=0, atol=0, equal_nan=True)
    assert first["kept"] != second["kept"]

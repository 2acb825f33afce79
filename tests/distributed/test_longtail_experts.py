"""Methods with several experts, of medbolt-longtail, on two processes: what one does."""

import os
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.longtail import AddExperts, BilateralBranch, DiverseExperts, ExpertAggregation, SkilledExperts

pytestmark = pytest.mark.ddp

COUNTS = [90, 9, 1]


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes."""

    def __init__(self) -> None:
        super().__init__(0.01)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 8), nn.Linear(8, 3))


METHODS: dict[str, list[Callback]] = {
    "diverse": [AddExperts(3, ["3"], "4"), DiverseExperts(start=1, class_counts=COUNTS)],
    "skilled": [AddExperts(3, ["3"], "4"), SkilledExperts(class_counts=COUNTS)],
    "bilateral": [AddExperts(2, ["3"], "4"), BilateralBranch()],
}


def everything() -> dict[str, Any]:
    found: dict[str, Any] = {}
    size = 8 // int(os.environ.get("WORLD_SIZE", "1"))
    for name, callbacks in METHODS.items():
        module = Plain()
        data = ToyImages({"test": 11}, batch_size=size)
        trainer(RandomState(7), *callbacks, epochs=2).fit(module, datamodule=data)
        found[name] = weights(module)
        if name == "skilled":
            aggregation = ExpertAggregation(steps=50, lr=50.0)
            trainer(aggregation).test(module, datamodule=data, verbose=False)
            found["aggregation"] = aggregation.weights[0]
    return found


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


@pytest.mark.parametrize("name", [*METHODS, "aggregation"])
def test_two_processes_do_what_one_does(results, name):
    one, two = results
    for process in two:
        torch.testing.assert_close(process[name], one[name], rtol=1e-4, atol=1e-6)


def test_aggregation_moved_and_is_the_same_to_the_last_bit_on_both_processes(results):
    one, (first, second) = results
    assert one["aggregation"].std() > 1e-3
    assert torch.equal(first["aggregation"], second["aggregation"])

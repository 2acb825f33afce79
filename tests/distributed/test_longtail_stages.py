"""Second stages, schedules and second batches of medbolt-longtail on two processes: what one does."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.longtail import (
    BalancedMixUp,
    CenterLoss,
    DeferredReweighting,
    FeatureLoss,
    InfluenceBalancedLoss,
    InfluenceBalancing,
    Resampled,
    TwoStageTraining,
)

pytestmark = pytest.mark.ddp

COUNTS = [90, 9, 1]


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes."""

    def __init__(self) -> None:
        super().__init__(0.01)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


class Same(BalancedMixUp):
    """With one weight for all samples, so that what is mixed does not depend on the process."""

    def draw(self, size, target, device):
        mix = super().draw(size, target, device)
        mix.image_weight.fill_(0.7)
        return mix


def centers() -> CenterLoss:
    torch.manual_seed(1)
    return CenterLoss(3, 144, reduction="none")


METHODS: dict[str, Any] = {
    "second stage": lambda: (ToyClassifier(0.01), [TwoStageTraining(trainable=["5"], reset=["5"])]),
    "deferred": lambda: (Plain(), [DeferredReweighting(1, class_counts=COUNTS)]),
    "centers": lambda: (Plain(), [FeatureLoss(centers(), 0.1, start=1, features="model.2")]),
    "influence": lambda: (
        Plain(),
        [InfluenceBalancing(InfluenceBalancedLoss(10.0, class_counts=COUNTS), 1, "model.2")],
    ),
    "second batch": lambda: (Plain(), [Same()]),
}


def everything() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, make in METHODS.items():
        module, callbacks = make()
        given: list[Callback] = [RandomState(7), *callbacks]
        data = ToyImages(batch_size=8 // trainer().world_size)
        trainer(*given, epochs=2).fit(module, datamodule=Resampled(data) if name == "second stage" else data)
        loss = getattr(callbacks[0], "loss", None)
        found[name] = {
            "weights": weights(module),
            "centers": loss.centers.detach() if isinstance(loss, CenterLoss) else None,
        }
    return found


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


@pytest.mark.parametrize("name", METHODS)
def test_two_processes_do_what_one_does(results, name):
    one, two = results
    for process in two:
        torch.testing.assert_close(process[name], one[name], rtol=1e-4, atol=1e-6)

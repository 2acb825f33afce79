"""Losses and callbacks of medbolt-longtail with methods of medbolt-noisy and with MixUp."""

import math
from collections import OrderedDict
from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import Callback
from torch import Tensor, nn
from toys import ToyImages, trainer

import medbolt.longtail
from medbolt.core import ClassificationTask, MixUp, UserError
from medbolt.longtail import (
    AddExperts,
    CenterLoss,
    ClassCountsLoss,
    ConMix,
    DeferredReweighting,
    DiverseExperts,
    FeatureLoss,
    InfluenceBalancedLoss,
    InfluenceBalancing,
    LongTailed,
    RareSampleGeneration,
    Remix,
    UniMix,
)
from medbolt.noisy import CoTeaching, EarlyLearningRegularization, SparseOverParameterization

CLASSES, COUNTS = 3, [16, 7, 3]
START = 1  # epoch of two in which what is deferred begins


class Network(nn.Module):
    """Two layers, the first of which gives maps, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        maps = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.GELU())
        vector = nn.Sequential(nn.Conv2d(4, 8, 3, padding=1), nn.GELU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.features = nn.Sequential(OrderedDict(layer1=maps, layer2=vector))
        self.head = nn.Linear(8, CLASSES)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.features(image))


class Watches(Callback):
    """Keeps the losses, and the parameters before and after training, attached ones included."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.before: dict[str, Tensor] = {}
        self.after: dict[str, Tensor] = {}

    def on_train_start(self, trainer, pl_module):
        self.before = {name: p.detach().clone() for name, p in pl_module.named_parameters()}

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.losses.append(float(outputs["loss"]))

    def on_train_end(self, trainer, pl_module):
        self.after = {name: p.detach().clone() for name, p in pl_module.named_parameters()}


def fit(*callbacks: Callback, criterion: nn.Module | None = None) -> None:
    """Fit; check that losses and parameters are finite and that every parameter moved."""
    task = ClassificationTask(Network(), CLASSES, criterion=criterion, optimizer=lambda p: torch.optim.Adam(p, 0.01))
    data, seen = LongTailed(ToyImages({"train": 48}, batch_size=13), ratio=16 / 3), Watches()
    assert data.class_counts == COUNTS
    trainer(*callbacks, seen, epochs=2, limit_val_batches=0).fit(task, datamodule=data)
    assert len(seen.losses) == 4
    assert all(map(math.isfinite, seen.losses))
    assert all(p.isfinite().all() for p in seen.after.values())
    assert [name for name, p in seen.after.items() if torch.equal(p, seen.before[name])] == []


METHODS: dict[str, Callable[[], Callback]] = {
    "co-teaching": lambda: CoTeaching(0.3, gradual_epochs=0),
    "elr": EarlyLearningRegularization,
    "sop": SparseOverParameterization,
    "mixup": MixUp,
}
FEATURES = {"FeatureLoss", "CenterLoss", "RangeLoss"}
FINDINGS = {"AsymmetricLoss", "DistributionBalancedLoss", "TwoWayLoss", "WeightedBinaryCrossEntropyLoss"}
NO_CRITERION_HERE = {"ClassCountsLoss"} | FEATURES | FINDINGS
LOSSES = [name for name in medbolt.longtail.__all__ if name.endswith("Loss") and name not in NO_CRITERION_HERE]
CALLBACKS: dict[str, Callable[[], list[Callback]]] = {
    "deferred re-weighting": lambda: [DeferredReweighting(START)],
    "center": lambda: [FeatureLoss(CenterLoss(CLASSES, 8, reduction="none"), 0.1, START)],
    "influence": lambda: [InfluenceBalancing(InfluenceBalancedLoss(10.0), START)],
    "remix": lambda: [Remix()],
    "unimix": lambda: [UniMix()],
    "con mix": lambda: [ConMix(strong=nn.Hardshrink(0.3))],
    "rsg": lambda: [RareSampleGeneration(4, "model.features.layer1", START, 0.4, centers=2, hidden=4)],
    "ride": lambda: [AddExperts(3, ["features.layer2"]), DiverseExperts(start=START)],
}
each_callback = pytest.mark.parametrize("callback", CALLBACKS)
each_method = pytest.mark.parametrize("method", ["co-teaching", "elr", "mixup"])


@pytest.mark.parametrize("method", ["co-teaching", "elr", "sop"])
@pytest.mark.parametrize("loss", LOSSES)
def test_a_method_over_every_loss(loss, method):
    criterion = getattr(medbolt.longtail, loss)()
    fit(METHODS[method](), criterion=criterion)
    if isinstance(criterion, ClassCountsLoss):
        assert criterion.class_counts is not None
        assert criterion.class_counts.tolist() == COUNTS


@each_method
@each_callback
def test_a_method_over_a_callback(callback, method):
    if (callback, method) == ("ride", "co-teaching"):  # whose second network would learn nothing
        with pytest.raises(UserError, match="asks for the loss of others; put it before the method with experts"):
            fit(*CALLBACKS[callback](), METHODS[method]())
        return
    fit(*CALLBACKS[callback](), METHODS[method]())


@each_method
@each_callback
def test_a_callback_over_a_method(callback, method):
    *first, last = CALLBACKS[callback]()
    if callback == "rsg":  # which makes 18 samples of the batch's 13 for what is inward
        with pytest.raises(UserError, match=r"\b18\b"):
            fit(METHODS[method](), last)
    else:
        fit(*first, METHODS[method](), last)

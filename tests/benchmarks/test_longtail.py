"""What losses for long tails cost against cross entropy, and how long a sampler takes for an epoch."""

import time

import pytest
import torch
import torch.nn.functional as F

from medbolt.core.losses import tell_class_counts
from medbolt.longtail import (
    AsymmetricLoss,
    BalancedSoftmaxLoss,
    CenterLoss,
    ClassBalancedLoss,
    ClassBalancedSampler,
    DistributionBalancedLoss,
    EqualizationLoss,
    FlexRebalancingSampler,
    FocalLoss,
    GaussianCloudedLogitLoss,
    InfluenceBalancedLoss,
    LabelAwareSmoothingLoss,
    LADELoss,
    LDAMLoss,
    LogitAdjustedLoss,
    ProgressivelyBalancedSampler,
    RangeLoss,
    RepeatFactorSampler,
    SeesawLoss,
    SquareRootSampler,
    TwoWayLoss,
    VectorScalingLoss,
    WeightedBinaryCrossEntropyLoss,
    WeightedCrossEntropyLoss,
)

BATCH, CLASSES, SAMPLES = 256, 1000, 5_000_000
COUNTS = (5000 * 500 ** -torch.linspace(0, 1, CLASSES)).long().tolist()
AS_SOFTMAX = [
    WeightedCrossEntropyLoss(),
    FocalLoss(),
    ClassBalancedLoss("softmax"),
    BalancedSoftmaxLoss(),
    LogitAdjustedLoss(),
    LDAMLoss(),
    VectorScalingLoss(),
    LabelAwareSmoothingLoss(),
    InfluenceBalancedLoss(),
]
MORE = {LADELoss(): "<= 3", SeesawLoss(): "<= 3"}
OTHER_FORMULA = [
    EqualizationLoss(),
    GaussianCloudedLogitLoss(),
    ClassBalancedLoss(),
    RangeLoss(),
    CenterLoss(1000, 1000),
]
MULTI_LABEL = [
    AsymmetricLoss(),
    DistributionBalancedLoss(100_000),
    TwoWayLoss(),
    WeightedBinaryCrossEntropyLoss(100_000),
]
GOALS = dict.fromkeys(AS_SOFTMAX, "<= 1.1") | MORE | dict.fromkeys(OTHER_FORMULA + MULTI_LABEL, "-")


@pytest.mark.parametrize("loss", GOALS, ids=lambda loss: type(loss).__name__)
def test_a_loss(figures, loss):
    """Forward and backward, against cross entropy, or binary cross entropy for multi-label losses."""
    tell_class_counts(loss, COUNTS)
    logits = torch.randn(BATCH, CLASSES, requires_grad=True)
    target = torch.randint(0, CLASSES, (BATCH,), generator=torch.Generator().manual_seed(0))
    plain, name = F.cross_entropy, "F.cross_entropy"
    if loss in MULTI_LABEL:
        target = F.one_hot(target, CLASSES).float()
        plain, name = F.binary_cross_entropy_with_logits, "F.binary_cross_entropy_with_logits"

    def step(function):
        logits.grad = None
        function(logits, target).backward()

    label = f"{type(loss).__name__}{f', {loss.loss}' if isinstance(loss, ClassBalancedLoss) else ''}"
    figures.compare(f"{label} / {name}", lambda: step(loss), lambda: step(plain), GOALS[loss], rounds=501)


@pytest.mark.parametrize(
    "kind",
    [
        ClassBalancedSampler,
        SquareRootSampler,
        ProgressivelyBalancedSampler,
        RepeatFactorSampler,
        FlexRebalancingSampler,
    ],
)
def test_a_sampler(figures, kind):
    """The order of an epoch of five million samples of a thousand classes; the repeat factor at LVIS's threshold."""
    counts = torch.tensor(COUNTS).double()
    targets = torch.multinomial(counts, SAMPLES, True, generator=torch.Generator().manual_seed(0))
    sampler = kind(targets, threshold=0.001) if kind is RepeatFactorSampler else kind(targets)
    start = time.perf_counter()
    order = sampler.order()
    seconds = time.perf_counter() - start
    figures.add(f"{kind.__name__}, order of {len(order):,} draws", f"{seconds:.2f} s", seconds, "<= 2")

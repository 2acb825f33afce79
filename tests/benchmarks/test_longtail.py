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
N = torch.tensor(COUNTS).float()
WEIGHTS = CLASSES / N / (1 / N).sum()
EFFECTIVE = CLASSES / (1 - 0.9999**N) / (1 / (1 - 0.9999**N)).sum()
LOG_PRIOR, MARGINS = (N / N.sum()).log(), 15 * (N.min() / N) ** 0.25
SMOOTHING = 0.3 * ((N - N.min()) / (N.max() - N.min()) * torch.pi / 2).sin()


def weighted(z, y, weights=WEIGHTS):
    return F.cross_entropy(z, y, weights, reduction="sum") / len(y)


def class_balanced(z, y):
    return weighted(z, y, EFFECTIVE)


def focal(z, y):
    nll = F.cross_entropy(z, y, reduction="none")
    return ((1 - (-nll).exp()) ** 2 * nll).mean()


def adjusted(z, y):
    return F.cross_entropy(z + LOG_PRIOR, y)


def with_margin(z, y):
    return F.cross_entropy(z.scatter_add(1, y[:, None], -MARGINS[y][:, None]), y)


def scaled(z, y):
    return F.cross_entropy(z * (N / N.max()) ** 0.3 + LOG_PRIOR, y)


def smoothed(z, y):
    log_p, smoothing = z.log_softmax(1), SMOOTHING[y]
    return ((smoothing - 1) * log_p.gather(1, y[:, None])[:, 0] - smoothing * log_p.mean(1)).mean()


def by_influence(z, y):
    nll = F.cross_entropy(z, y, reduction="none")
    influence = (z.detach().softmax(1) - F.one_hot(y, CLASSES)).abs().sum(1)
    return (WEIGHTS[y] * nll / (influence + 1e-3)).mean()


# the loss, the shortest way to write its formula in torch, and whether that is cross entropy with weights and no more
AS_SOFTMAX = {
    WeightedCrossEntropyLoss(): (weighted, True),
    ClassBalancedLoss("softmax"): (class_balanced, True),
    FocalLoss(): (focal, False),
    BalancedSoftmaxLoss(): (adjusted, False),
    LogitAdjustedLoss(): (adjusted, False),
    LDAMLoss(): (with_margin, False),
    VectorScalingLoss(): (scaled, False),
    LabelAwareSmoothingLoss(): (smoothed, False),
    InfluenceBalancedLoss(): (by_influence, False),
}
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
GOALS = {loss: "<= 1.1" if alone else "-" for loss, (_, alone) in AS_SOFTMAX.items()}
GOALS |= MORE | dict.fromkeys(OTHER_FORMULA + MULTI_LABEL, "-")


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
    if loss in AS_SOFTMAX:
        formula, _ = AS_SOFTMAX[loss]
        torch.testing.assert_close(loss(logits, target), formula(logits, target))
        name = f"{label} / its formula in torch"
        figures.compare(name, lambda: step(loss), lambda: step(formula), "<= 1.1", rounds=501)


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

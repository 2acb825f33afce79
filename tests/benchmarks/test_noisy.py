"""What robust losses and noise models cost: each loss against cross entropy, instance noise against a loop."""

import time

import numpy as np
import pytest
import torch
from torch import nn

from medbolt.core import TimmClassifier
from medbolt.noisy import (
    ActivePassiveLoss,
    BackwardCorrectedLoss,
    DeterminantMutualInformationLoss,
    ForwardCorrectedLoss,
    GeneralizedCrossEntropyLoss,
    ImportanceReweightedLoss,
    InstanceDependentNoise,
    LabelSmoothingLoss,
    MeanAbsoluteErrorLoss,
    PeerSieveLoss,
    SymmetricCrossEntropyLoss,
)

CLASSES, BATCH, IMAGES = 10, 128, 2000
SYMMETRIC = torch.full((CLASSES, CLASSES), 0.4 / (CLASSES - 1)).fill_diagonal_(0.6)
PEER = PeerSieveLoss()
PEER.set_epoch(40)
LOSSES = [
    SymmetricCrossEntropyLoss(),
    GeneralizedCrossEntropyLoss(),
    MeanAbsoluteErrorLoss(),
    ActivePassiveLoss(),
    ActivePassiveLoss("focal", "mean_absolute_error"),
    ForwardCorrectedLoss(SYMMETRIC),
    BackwardCorrectedLoss(SYMMETRIC),
    ImportanceReweightedLoss(SYMMETRIC),
    LabelSmoothingLoss(),
    PEER,
    DeterminantMutualInformationLoss(),
]


def seconds(function, rounds):
    """Return the median time of a call."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


@pytest.fixture(scope="module")
def step_seconds():
    """Time of a training step of resnet10t at 28 px with cross entropy."""
    model, images = TimmClassifier("resnet10t", CLASSES), torch.randn(BATCH, 3, 28, 28)
    target = torch.arange(BATCH) % CLASSES
    return seconds(lambda: nn.functional.cross_entropy(model(images), target).backward(), 8)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_a_loss(figures, step_seconds, loss):
    """The loss alone, and the step with it as a multiple of the step with cross entropy."""
    logits, target = torch.randn(BATCH, CLASSES, requires_grad=True), torch.arange(BATCH) % CLASSES
    ours, plain = (seconds(lambda f=f: f(logits, target).backward(), 200) for f in (loss, nn.functional.cross_entropy))
    name = type(loss).__name__
    figures.add(f"{name} / F.cross_entropy, alone", f"{ours * 1e6:.0f} us / {plain * 1e6:.0f} us", ours / plain, "-")
    step = (step_seconds - plain + ours) / step_seconds
    figures.add(f"{name} / cross entropy, step", f"{step_seconds * 1e3:.0f} ms", step, "<= 1.05")


def loop_over_samples(images, targets, rate, projections):
    """Draw instance-dependent labels sample by sample, every pixel projected by the matrix of the sample's class."""
    rates = np.clip(np.random.default_rng(0).normal(rate, 0.1, len(targets)), 0, 1)
    labels = []
    for image, target, flip in zip(images, targets.tolist(), rates, strict=True):
        scores = (image.float() / 255).reshape(1, -1).mm(projections[target]).squeeze(0)
        scores[target] = -torch.inf
        row = flip * scores.softmax(0).double()
        row[target] += 1 - flip
        row = row.numpy()
        labels.append(np.random.choice(CLASSES, p=row / row.sum()))  # noqa: NPY002
    return labels


def test_instance_noise(figures):
    """Images of 224 px in memory; the time an image does not depend on how many there are."""
    images = torch.randint(0, 256, (IMAGES, 3, 224, 224), dtype=torch.uint8)
    targets, noise = torch.arange(IMAGES) % CLASSES, InstanceDependentNoise(0.4)
    projections = torch.randn(CLASSES, images[0].numel(), CLASSES)
    few = slice(IMAGES // 10)
    ours = seconds(lambda: noise(targets, CLASSES, images=images), 5) / IMAGES
    loop = seconds(lambda: loop_over_samples(images[few], targets[few], 0.4, projections), 5) / (IMAGES // 10)
    figures.add(
        "loop over samples / instance noise", f"{loop * 1e6:.0f} us / {ours * 1e6:.0f} us", loop / ours, ">= 20"
    )

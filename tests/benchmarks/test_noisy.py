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

CLASSES, BATCH, IMAGES = 10, 128, 100_000
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


class Repeated:
    """Pictures that stand in memory once and come many times."""

    def __init__(self, images, size):
        self.images, self.size = images, size

    def __len__(self):
        return self.size

    def __getitem__(self, row):
        return self.images[row % len(self.images)]


def test_instance_noise(figures):
    """100,000 images of 224 px in memory, of which 2000 differ (300 MB, more than any cache); the loop has 200.

    The loop projects every pixel, as public code does, and ours those of a grid, by default; without it, as many.
    """
    different = torch.randint(0, 256, (2000, 3, 224, 224), dtype=torch.uint8)
    images, few = Repeated(different, IMAGES), slice(IMAGES // 500)
    targets, noise = torch.arange(IMAGES) % CLASSES, InstanceDependentNoise(0.4)
    projections = torch.randn(CLASSES, different[0].numel(), CLASSES)
    ours = seconds(lambda: noise(targets, CLASSES, images=images), 3) / IMAGES
    loop = seconds(lambda: loop_over_samples(different[few], targets[few], 0.4, projections), 9) / (IMAGES // 500)
    every, some = InstanceDependentNoise(0.4, grid=None), IMAGES // 20
    whole = seconds(lambda: every(targets[:some], CLASSES, images=Repeated(different, some)), 3) / some
    for name, time_of_one, goal in (("instance noise", ours, ">= 20"), ("instance noise of every pixel", whole, "-")):
        measured = f"{loop * 1e6:.0f} us / {time_of_one * 1e6:.0f} us"
        figures.add(f"loop over samples / {name}", measured, loop / time_of_one, goal)

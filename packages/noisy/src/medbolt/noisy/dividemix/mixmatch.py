"""MixMatch as DivideMix uses it: targets made by two networks, and mixtures of images."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn


def predictions(networks: Sequence[nn.Module], views: Tensor) -> Tensor:
    """Return each network's probabilities, the mean over the views, in evaluation mode and without gradient.

    Args:
        networks: K networks, image to logits (., C).
        views: (B, V, ...) images.

    Returns:
        (K, B, C) float32.
    """
    images = views.flatten(0, 1)
    with _evaluating(networks), torch.no_grad():
        found = [network(images).float().softmax(1).unflatten(0, views.shape[:2]).mean(1) for network in networks]
    torch.clear_autocast_cache()  # a cast made without gradients must not serve the pass with gradients
    return torch.stack(found)


def sharpened(probability: Tensor, temperature: float) -> Tensor:
    r"""Return :math:`p_c^{1/T} / \sum_k p_k^{1/T}`.

    Example:
        >>> sharpened(torch.tensor([[0.75, 0.25]]), temperature=0.5)  # 9 : 1
        tensor([[0.9000, 0.1000]])
    """
    return (probability.log() / temperature).softmax(-1)


def targets(own: Tensor, guess: Tensor, label: Tensor, clean: Tensor, labelled: Tensor, temperature: float) -> Tensor:
    r"""Return what one network is to predict, (B, C): refined labels, and guesses where samples count as unlabelled.

    Args:
        own: (B, C) probabilities of this network.
        guess: (B, C) mean probabilities of both networks.
        label: (B,) int64 or (B, C) float given labels.
        clean: (B,) probability w that the label is right, of the other network.
        labelled: (B,) bool, which samples count as labelled, by the other network.
        temperature: T of the sharpening.

    Example:
        >>> p, label = torch.tensor([[0.5, 0.5], [0.8, 0.2]]), torch.tensor([0, 1])
        >>> w, labelled = torch.tensor([0.8, 0.1]), torch.tensor([True, False])
        >>> targets(p, p, label, w, labelled, temperature=1.0)  # 0.8 * 1 + 0.2 * 0.5; the guess
        tensor([[0.9000, 0.1000],
                [0.8000, 0.2000]])
    """
    given = label.to(own) if label.is_floating_point() else F.one_hot(label, own.shape[1]).to(own)
    clean = clean.to(own)[:, None]
    return sharpened(torch.where(labelled[:, None], clean * given + (1 - clean) * own, guess), temperature)


def mixed(images: Tensor, target: Tensor, alpha: float, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    r"""Mix each image and target with those of a random partner: :math:`l \sim Beta(\alpha, \alpha)`, l at least 1/2.

    Example:
        >>> images, target = mixed(torch.ones(2, 3, 4, 4), torch.eye(2), 4.0, np.random.default_rng(0))
        >>> bool((images == 1).all()), bool((target.diag() >= 0.5).all())
        (True, True)
    """
    weight = float(generator.beta(alpha, alpha))
    weight = max(weight, 1 - weight)
    partner = torch.from_numpy(generator.permutation(len(images))).to(images.device)
    return weight * images + (1 - weight) * images[partner], weight * target + (1 - weight) * target[partner]


def ramped(weight: float, epoch: float, start: float, length: float) -> float:
    """Return a weight that rises linearly from 0 at an epoch to its full value some epochs later.

    Example:
        >>> [ramped(25.0, epoch, start=10, length=16) for epoch in (3, 10, 14.0, 30)]
        [0.0, 0.0, 6.25, 25.0]
    """
    return weight * min(max(epoch - start, 0.0) / length, 1.0) if length else weight


@contextmanager
def _evaluating(networks: Sequence[nn.Module]) -> Iterator[None]:
    """Put networks into evaluation mode, and each part back as it was."""
    training = {part: part.training for network in networks for part in network.modules()}
    for network in networks:
        network.eval()
    try:
        yield
    finally:
        for part, was_training in training.items():
            part.training = was_training

"""Weights under which what experts say together changes least from one view of an image to another."""

import torch
import torch.nn.functional as F
from torch import Tensor


def stable_weights(first: Tensor, second: Tensor, steps: int, lr: float, min_weight: float) -> Tensor:
    """Return the weights of experts under which the predictions of two views are the most similar, (E,).

    Args:
        first: (N, E, C) float, the experts' logits of one view.
        second: Those of the other.
        steps: Most steps.
        lr: Step size.
        min_weight: Weight to stop at.

    Example:
        >>> z = torch.tensor([[[3.0, 0.0], [3.0, 0.0]]])  # two experts of one image
        >>> stable_weights(z, torch.tensor([[[3.0, 0.0], [0.0, 3.0]]]), steps=20, lr=0.5, min_weight=0.05)
        tensor([0.8058, 0.1942])
    """
    a = torch.zeros(first.shape[1], dtype=first.dtype, requires_grad=True)
    for _ in range(steps):
        w = a.softmax(0)
        if w.min() < min_weight:
            break
        one, two = ((w[:, None] * z).sum(1).softmax(1) for z in (first, second))
        (uphill,) = torch.autograd.grad(F.cosine_similarity(one, two).mean(), a)
        a = (a + lr * uphill).detach().requires_grad_()
    return a.detach().softmax(0)

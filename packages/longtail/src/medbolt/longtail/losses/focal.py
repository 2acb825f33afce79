"""Focal loss: what is already right counts little."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.inputs import class_logits, target_matrix


class FocalLoss(nn.Module):
    r"""Down-weight samples, or labels, that the network is sure and right about.

    .. math::
        \ell_i = -(1 - p_{i,y_i})^\gamma \log p_{i,y_i}\ \text{(softmax)}, \qquad
        \ell_i = -\sum_c (1 - q_{ic})^\gamma \log q_{ic}\ \text{(sigmoid)}

    with :math:`q_{ic}` the sigmoid probability of what label c really is, present or absent.

    Args:
        gamma: Focusing exponent, not negative; 0 is cross entropy. The paper uses 2.
        activation: ``"softmax"`` for one class a sample, ``"sigmoid"`` for one yes or no a class (also multi-label).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities or labels; output () or (B,).

    Raises:
        ValueError: if ``gamma`` is negative.

    State, cost: none; one softmax, or one sigmoid an entry.

    Source: Lin et al., arXiv 1708.02002. Public long-tail code takes p from a class-weighted cross entropy,
    which is no probability; here nothing weights it.

    Example:
        >>> FocalLoss()(torch.zeros(1, 2), torch.tensor([0])).item()  # 0.5**2 * log(2)
        0.1732...
    """

    def __init__(
        self,
        gamma: float = 2.0,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        check_gamma(gamma)
        self.gamma = gamma
        self.activation: Literal["softmax", "sigmoid"] = activation
        self.reduction: Reduction = reduction
        self.one_class_a_sample = activation == "softmax"

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        focal = softmax_focal if self.activation == "softmax" else sigmoid_focal
        return reduce(focal(class_logits(logits, self), target, self.gamma), self.reduction)


def softmax_focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return the softmax focal loss per sample, (B,); soft targets weigh the loss of each class.

    Example:
        >>> softmax_focal(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)
        tensor([0.3466])
    """
    if not target.is_floating_point():
        nll = cross_entropy(logits, target)
        return _improbability(nll) ** gamma * nll
    nll = -logits.log_softmax(1)
    return (target * _improbability(nll) ** gamma * nll).sum(1)


def sigmoid_focal(logits: Tensor, target: Tensor, gamma: float) -> Tensor:
    """Return the sigmoid focal loss per sample, (B,), summed over the classes.

    Example:
        >>> sigmoid_focal(torch.zeros(1, 2), torch.tensor([0]), gamma=1.0)
        tensor([0.6931])
    """
    if target.ndim > 1 or target.is_floating_point():
        return (target * _focal_of(-logits, gamma) + (1 - target) * _focal_of(logits, gamma)).sum(1)
    sign = 1 - 2 * target_matrix(target, logits)
    return _focal_of(sign * logits, gamma).sum(1)


def check_gamma(gamma: float) -> None:
    """Refuse a negative focusing exponent.

    Raises:
        ValueError: if ``gamma`` is negative.

    Example:
        >>> check_gamma(2.0)
    """
    if gamma < 0:
        raise ValueError(f"gamma must not be negative, got {gamma}")


def _focal_of(wrong: Tensor, gamma: float) -> Tensor:
    """Return the loss of entries whose logit of being wrong is given."""
    return (gamma * F.logsigmoid(wrong)).exp() * F.softplus(wrong) if gamma else F.softplus(wrong)


def _improbability(nll: Tensor) -> Tensor:
    """Return 1 - p from -log p; never quite 0, where powers below 1 have no gradient."""
    return (-torch.expm1(-nll)).clamp(min=1e-12)

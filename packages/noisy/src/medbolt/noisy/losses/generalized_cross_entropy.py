"""Generalized cross entropy: cross entropy that forgives what it cannot learn."""

import math

import torch
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce, target_probability


class GeneralizedCrossEntropyLoss(nn.Module):
    r"""Interpolate between cross entropy (q -> 0) and mean absolute error (q = 1).

    .. math:: \ell_i = \frac{1 - p_{i,y_i}^{\,q}}{q}

    Samples the network finds improbable, mislabelled ones among them, get a bounded loss and a vanishing gradient. The
    truncated loss takes the second step too: where :math:`p_{i,y_i} \le k` it is the constant :math:`(1 - k^q) / q`,
    which has no gradient at all. Truncate only a network that was trained without for some epochs: a fresh one finds
    every label improbable.

    Args:
        q: Exponent in (0, 1]. The paper uses 0.7.
        truncation: The probability k in (0, 1) below which a sample teaches nothing, 0.5 in the paper as we remember
            it (**unverified**); ``None`` for the loss without truncation.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C, ...) float; target (B, ...) int64 class indices or (B, C, ...) float probabilities; output () or
        (B, ...). The probability of a soft target is that of drawing the same class from target and prediction.

    Raises:
        ValueError: if ``q`` is outside (0, 1] or ``truncation`` outside (0, 1).

    State, cost: none; one softmax.

    Source: Zhang and Sabuncu, arXiv 1805.07836; truncation from memory (**unverified**).
    Public code clamps p at 1e-7, which stops the gradient of the samples below; here the power is taken in log space,
    so no clamp is needed. The paper's alternating selection of samples is not part of the loss: this truncation
    re-decides in every step.

    Example:
        >>> loss = GeneralizedCrossEntropyLoss(q=0.7)
        >>> loss(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])).item()  # (1 - 0.5**0.7) / 0.7
        0.5491...
    """

    one_class_a_sample = True

    def __init__(self, q: float = 0.7, truncation: float | None = None, reduction: Reduction = "mean") -> None:
        super().__init__()
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        if truncation is not None and not 0 < truncation < 1:
            raise ValueError(f"truncation must be in (0, 1) or None, got {truncation}")
        self.q, self.truncation, self.reduction = q, truncation, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        log_p = target_probability(logits, target, log=True)
        if self.truncation is not None:
            log_p = log_p.clamp(min=math.log(self.truncation))
        return reduce(-torch.expm1(self.q * log_p) / self.q, self.reduction)

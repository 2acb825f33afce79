"""Asymmetric loss (ASL): the many easy absent labels count little, the very easy ones not at all."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.inputs import class_logits, target_matrix


class AsymmetricLoss(nn.Module):
    r"""Focus absent labels harder than present ones, and shift their probability by a margin.

    .. math::
        \ell_{ic} = -y_{ic} (1 - p_{ic})^{\gamma_+} \log p_{ic}
        - (1 - y_{ic})\, \bar p_{ic}^{\gamma_-} \log(1 - \bar p_{ic}), \quad
        \bar p_{ic} = \max(p_{ic} - m, 0)

    for multi-label data, with sigmoid probabilities p. Absent labels with p below m have no loss.

    Args:
        gamma_negative: Focusing exponent of absent labels, not negative.
        gamma_positive: Focusing exponent of present labels, not negative.
        margin: Shift m of the probability of absent labels, in [0, 1).
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; the paper sums over samples and labels.

    Shapes:
        logits (B, C) float; target (B, C) labels in [0, 1], or (B,) int64 class indices; output () or (B, C).

    Raises:
        ValueError: if an exponent is negative or ``margin`` outside [0, 1).

    State, cost: none; a few operations an entry.

    Source: Ridnik et al., arXiv 2009.14119. The public code takes the focusing factor as a constant by
    default and clamps p at 1e-8; here the gradient is that of the formula, in log space. With ``margin=0`` and both
    exponents 0 it is binary cross entropy.

    Example:
        >>> loss = AsymmetricLoss(reduction="none")
        >>> loss(torch.tensor([[0.0, -4.0]]), torch.tensor([[1.0, 0.0]]))  # 0.5 log(2); below the margin
        tensor([[0.3466, 0.0000]])
    """

    def __init__(
        self,
        gamma_negative: float = 4.0,
        gamma_positive: float = 1.0,
        margin: float = 0.05,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if gamma_negative < 0 or gamma_positive < 0:
            raise ValueError(f"exponents must not be negative, got {gamma_negative} and {gamma_positive}")
        if not 0 <= margin < 1:
            raise ValueError(f"margin must be in [0, 1), got {margin}")
        self.gamma_negative, self.gamma_positive, self.margin = gamma_negative, gamma_positive, margin
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        target = target_matrix(target, logits)
        log_p, log_absent = F.logsigmoid(logits), F.logsigmoid(-logits)
        present = -log_p if self.gamma_positive == 0 else -log_p * (self.gamma_positive * log_absent).exp()
        if self.margin:
            log_absent = torch.logaddexp(log_absent, logits.new_tensor(math.log(self.margin))).clamp(max=0)
        absent = -log_absent
        if self.gamma_negative:
            # log(1 - p) of 0 is a shifted p of 0, where powers below 1 have no gradient
            absent = absent * (-torch.expm1(log_absent)).clamp(min=1e-12) ** self.gamma_negative
        return reduce(target * present + (1 - target) * absent, self.reduction)

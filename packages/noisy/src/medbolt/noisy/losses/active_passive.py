"""Active-passive loss: a normalized loss that learns, with one that holds back."""

import math
from typing import Literal

import torch
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.symmetric_cross_entropy import reverse_cross_entropy
from medbolt.noisy.losses.targets import expected, log_probability

Active = Literal["cross_entropy", "focal", "generalized_cross_entropy"]
Passive = Literal["reverse_cross_entropy", "mean_absolute_error"]


class ActivePassiveLoss(nn.Module):
    r"""Add a normalized active loss and a passive loss, both robust to symmetric noise.

    .. math:: \ell_i = \alpha \frac{a(p_i, y_i)}{\sum_k a(p_i, k)} + \beta\, b(p_i, y_i)

    Dividing any loss :math:`a` by its sum over all labels makes it robust, but slow to fit; the passive loss :math:`b`,
    which pushes down the other classes, makes up for it. The active ones are

    - ``"cross_entropy"``: :math:`a(p, k) = -\log p_k`;
    - ``"focal"``: :math:`a(p, k) = -(1 - p_k)^\gamma \log p_k`;
    - ``"generalized_cross_entropy"``: :math:`a(p, k) = (1 - p_k^q) / q`,

    and the passive ones

    - ``"reverse_cross_entropy"``: :math:`-A (1 - p_y)`, with A as in :class:`SymmetricCrossEntropyLoss`;
    - ``"mean_absolute_error"``: :math:`1 - p_y`.

    Args:
        active: The loss to normalize.
        passive: The loss to add.
        alpha: Weight of the active loss: 1 for 10 classes, 10 for 100, 50 for real-world noise in 50 classes.
        beta: Weight of the passive loss: 10 for easy data, 1 for 10 classes, 0.1 for 100.
        gamma: Exponent of the focal loss.
        q: Exponent in (0, 1] of the generalized cross entropy.
        log_zero: The negative A of the reverse cross entropy; by default log 1e-4.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C, ...) float with C > 1; target (B, ...) int64 class indices or (B, C, ...) float probabilities;
        output () or (B, ...).

    Raises:
        ValueError: if a mode is unknown or an argument out of range.

    State, cost: none; one softmax and one power a class.

    Source: Ma et al., arXiv 2006.13554, eq. 4 and 5. Public code stops the gradient through the focal factor, and its
    option for generalized with reverse cross entropy computes mean absolute error; both follow the paper here.

    Example:
        >>> loss = ActivePassiveLoss(passive="mean_absolute_error")
        >>> loss(torch.zeros(1, 4), torch.tensor([2]))  # 1 / 4 + 3 / 4
        tensor(1.)
    """

    one_class_a_sample = True

    def __init__(
        self,
        active: Active = "cross_entropy",
        passive: Passive = "reverse_cross_entropy",
        alpha: float = 1.0,
        beta: float = 1.0,
        gamma: float = 0.5,
        q: float = 0.1,
        log_zero: float = math.log(1e-4),
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if active not in ("cross_entropy", "focal", "generalized_cross_entropy"):
            raise ValueError(f"active must be cross_entropy, focal or generalized_cross_entropy, got {active!r}")
        if passive not in ("reverse_cross_entropy", "mean_absolute_error"):
            raise ValueError(f"passive must be reverse_cross_entropy or mean_absolute_error, got {passive!r}")
        if min(alpha, beta, gamma) < 0:
            raise ValueError(f"alpha, beta and gamma must not be negative, got {alpha}, {beta} and {gamma}")
        if not 0 < q <= 1:
            raise ValueError(f"q must be in (0, 1], got {q}")
        if log_zero >= 0:
            raise ValueError(f"log_zero must be negative, got {log_zero}")
        self.active: Active = active
        self.passive: Passive = passive
        self.alpha, self.beta, self.gamma, self.q = alpha, beta, gamma, q
        self.log_zero, self.reduction = log_zero, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        log_p = log_probability(logits)
        losses = self._active_losses(log_p)
        active = expected(losses, target) / losses.sum(1)
        return reduce(self.alpha * active + self.beta * self._passive_loss(log_p, target), self.reduction)

    def _active_losses(self, log_p: Tensor) -> Tensor:
        """Return the active loss of every label, (B, C, ...)."""
        if self.active == "cross_entropy":
            return -log_p
        if self.active == "generalized_cross_entropy":
            return -torch.expm1(self.q * log_p)
        others = -torch.expm1(log_p)  # 1 - p, whose power has an infinite slope at 0
        return -others.clamp(min=torch.finfo(log_p.dtype).tiny).pow(self.gamma) * log_p

    def _passive_loss(self, log_p: Tensor, target: Tensor) -> Tensor:
        if self.passive == "reverse_cross_entropy":
            return reverse_cross_entropy(log_p, target, self.log_zero)
        return 1 - expected(log_p.exp(), target)

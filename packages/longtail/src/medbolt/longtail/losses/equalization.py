"""Equalization loss (EQL, SEQL): rare classes are not pushed down by samples of others."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.inputs import class_logits, hidden, target_matrix


class EqualizationLoss(ClassCountsLoss):
    r"""Leave rare classes out of the loss of samples that do not belong to them.

    .. math::
        \ell_i = -\log \frac{e^{z_{i,y_i}}}{\sum_c \omega_{ic} e^{z_{ic}}}, \quad
        \omega_{ic} = 1 - b_{ic}\, [\pi_c < \lambda]\, [c \ne y_i], \quad b_{ic} \sim \mathrm{Bernoulli}(\gamma)

    with softmax (SEQL); with ``activation="sigmoid"`` (EQL, also multi-label) :math:`\omega_{ic}` with b = 1 weighs the
    binary cross entropy of each entry. In evaluation mode no class is left out.

    Args:
        threshold: Frequency :math:`\lambda` below which a class is rare; 0 is cross entropy. By default 1/C, what a
            class would have if all had the same.
        gamma: Probability, in [0, 1], of leaving a rare class out of a sample's softmax.
        activation: ``"softmax"`` or ``"sigmoid"``.
        num_samples: Training samples; told by the task with the counts if not given. Where nobody tells, it is the sum
            of the counts, which suits one label a sample.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities or labels, where a class is
        only left out if its target is 0; output () or (B,), with ``"sigmoid"`` (B, C) instead of (B,).

    Raises:
        ValueError: if ``gamma`` is outside [0, 1] or ``num_samples`` not positive.

    State, cost: none; one random number an entry and one softmax. The numbers are torch's, so a run that restores
    torch's generator repeats them.

    Source: Tan et al., arXiv 2003.05176; the factor that excludes background belongs to detection. The
    paper's threshold is for 1000 classes; MONICA keeps it for 7 to 14, where no class is rarer and nothing changes.

    Example:
        >>> loss = EqualizationLoss(gamma=1.0, class_counts=[9, 1], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])).exp()  # the rare class is no negative of the frequent one
        tensor([1., 2.])
    """

    def __init__(
        self,
        threshold: float | None = None,
        gamma: float = 0.9,
        activation: Literal["softmax", "sigmoid"] = "softmax",
        num_samples: int | None = None,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction, num_samples)
        if not 0 <= gamma <= 1:
            raise ValueError(f"gamma must be in [0, 1], got {gamma}")
        self.threshold, self.gamma = threshold, gamma
        self.activation: Literal["softmax", "sigmoid"] = activation
        self.one_class_a_sample = activation == "softmax"

    def per_class(self, counts: Tensor) -> Tensor:
        """Return which classes are rare, (C,) bool."""
        threshold = 1 / len(counts) if self.threshold is None else self.threshold
        return counts / self.samples(counts) < threshold

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        if self.activation == "sigmoid":
            labels = target_matrix(target, logits)
            losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
            if self.training:
                losses = losses.masked_fill(self.of_classes(logits) & (labels == 0), 0.0)
            return reduce(losses, self.reduction)
        if self.training:
            left_out = self.of_classes(logits) & (target_matrix(target, logits) == 0)
            logits = hidden(logits, left_out & (torch.rand_like(logits) < self.gamma))
        return F.cross_entropy(logits, target, reduction=self.reduction)

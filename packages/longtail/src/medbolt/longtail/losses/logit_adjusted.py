"""Logit adjustment: train on logits that already hold the class frequencies."""

from collections.abc import Sequence

from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss, log_prior
from medbolt.longtail.losses.inputs import class_logits


class LogitAdjustedLoss(ClassCountsLoss):
    r"""Add the log frequency of the classes to the logits while training, so that what is learned is free of it.

    .. math:: \ell_i = -\log \frac{\pi_{y_i}^\tau e^{z_{i,y_i}}}{\sum_c \pi_c^\tau e^{z_{ic}}}

    The network then predicts with its plain logits: they minimise the error averaged over classes. With ``tau=1`` this
    is prior cross entropy (arXiv 2012.00321) and
    :class:`~medbolt.longtail.BalancedSoftmaxLoss`; do not adjust its logits again after training.

    Args:
        tau: Strength; 1 is consistent for the balanced error, 0 is cross entropy.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; output () or (B,).

    State, cost: none; one softmax.

    Source: Menon et al., arXiv 2007.07314. MONICA subtracts the log frequency in training, which favours the
    frequent classes twice; here it is added. An empty class counts as one sample.

    Example:
        >>> loss = LogitAdjustedLoss(class_counts=[3, 1], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])).exp()  # 4/3 and 4
        tensor([1.3333, 4.0000])
    """

    one_class_a_sample = True

    def __init__(
        self, tau: float = 1.0, class_counts: Sequence[int] | None = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(class_counts, reduction)
        self.tau = tau

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the adjustment of the logits, (C,)."""
        return self.tau * log_prior(counts)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        return cross_entropy(logits, target, shift=self.of_classes(logits), reduction=self.reduction)

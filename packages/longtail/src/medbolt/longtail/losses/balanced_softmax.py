"""Balanced softmax: a softmax in which every class has its number of samples."""

from collections.abc import Sequence

from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.inputs import class_logits


class BalancedSoftmaxLoss(ClassCountsLoss):
    r"""Weigh each class in the softmax's sum with its number of training samples.

    .. math:: \ell_i = -\log \frac{n_{y_i} e^{z_{i,y_i}}}{\sum_c n_c e^{z_{ic}}}

    The network predicts with its plain softmax. The loss equals
    :class:`~medbolt.longtail.LogitAdjustedLoss` with ``tau=1`` and LADE's prior cross entropy.

    Args:
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; output () or (B,).

    State, cost: none; one softmax.

    Source: Ren et al., arXiv 2007.10740; the meta sampler is not included. An empty class counts as one sample.

    Example:
        >>> loss = BalancedSoftmaxLoss(class_counts=[3, 1], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])).exp()  # 4/3 and 4
        tensor([1.3333, 4.0000])
    """

    one_class_a_sample = True

    def __init__(self, class_counts: Sequence[int] | None = None, reduction: Reduction = "mean") -> None:
        super().__init__(class_counts, reduction)

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the log counts, (C,)."""
        return counts.clamp(min=1).log()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        return cross_entropy(logits, target, shift=self.of_classes(logits), reduction=self.reduction)

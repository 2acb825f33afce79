"""Label-distribution-aware margins (LDAM): the rarer the class, the larger its margin."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss, smallest_count
from medbolt.longtail.losses.inputs import class_logits


class LDAMLoss(ClassCountsLoss):
    r"""Ask of the target's logit to win by a margin that grows as the class gets rarer.

    .. math::
        \ell_i = -\log \frac{e^{z_{i,y_i} - s\Delta_{y_i}}}
        {e^{z_{i,y_i} - s\Delta_{y_i}} + \sum_{c \ne y_i} e^{z_{ic}}},
        \qquad \Delta_c = m \left(\frac{n_{\min}}{n_c}\right)^{1/4}

    The margin is one of cosines: the paper's logits are :math:`z = s \cos`, from a head with normalised weights and
    features. ``scale`` is the s that the head has already put on them; the loss does not multiply the logits, so that
    what the network predicts with is what it was trained with. With an ordinary linear head take ``scale=1``.

    Args:
        max_margin: Margin m of the rarest class, not negative. The paper uses 0.5.
        scale: Scale s of the head's cosines, positive; 1 for a linear head.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float, C at least 2; target (B,) int64 class indices or (B, C) float probabilities, which weigh
        the losses of the classes, each with its own margin; output () or (B,).

    Raises:
        ValueError: if ``max_margin`` is negative or ``scale`` not positive.

    State, cost: none; one softmax, two for soft targets.

    Source: Cao et al., arXiv 1906.07413. MONICA multiplies the logits of an ordinary linear head by 30. An
    empty class has the margin of the rarest.

    Example:
        >>> loss = LDAMLoss(max_margin=0.5, scale=2.0, class_counts=[16, 1], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1]))  # margins 0.5 and 1: log(1 + e**0.5), log(1 + e)
        tensor([0.9741, 1.3133])
    """

    one_class_a_sample = True

    def __init__(
        self,
        max_margin: float = 0.5,
        scale: float = 30.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        if max_margin < 0 or scale <= 0:
            raise ValueError(f"max_margin must not be negative and scale positive, got {max_margin} and {scale}")
        self.max_margin, self.scale = max_margin, scale

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the margins of the logits, (C,)."""
        rarest = smallest_count(counts)
        return self.scale * self.max_margin * (rarest / counts.maximum(rarest)) ** 0.25

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        margins = self.of_classes(logits)
        if target.is_floating_point():
            losses = (target * F.softplus(_log_sum_of_others(logits) - logits + margins)).sum(1)
            return reduce(losses, self.reduction)
        return cross_entropy(logits, target, margin=margins[target], reduction=self.reduction)


def _log_sum_of_others(logits: Tensor) -> Tensor:
    """Return for each entry the logarithm of the sum of the exponentials of the others in its row."""
    total = logits.logsumexp(1, keepdim=True)
    top = logits.argmax(1, keepdim=True)
    p = (logits - total).exp().scatter(1, top, 0.0)  # at the largest entry 1 - p would cancel: summed anew below
    without_top = logits.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    return (total + torch.log1p(-p)).scatter(1, top, without_top)

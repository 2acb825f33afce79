"""Seesaw loss: frequent classes push rare ones less, unless they are mistaken for them."""

import math
from collections.abc import Sequence

from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.inputs import class_logits, hard


class SeesawLoss(ClassCountsLoss):
    r"""Scale the weight of each negative class in the softmax: down if rarer than the target, up if wrongly preferred.

    .. math::
        \ell_i = -\log \frac{e^{z_{i,y_i}}}{e^{z_{i,y_i}} + \sum_{c \ne y_i} M_{y_i c} C_{ic} e^{z_{ic}}}, \quad
        M_{yc} = \min\!\left(1, \frac{n_c}{n_y}\right)^{p}, \quad
        C_{ic} = \max\!\left(1, \frac{\sigma_{ic}}{\sigma_{i,y_i}}\right)^{q}

    The mitigation factor M spares rare classes the pressure of a frequent target; the compensation factor C, in which
    the softmax :math:`\sigma` is taken as a constant, brings it back where the rare class is the one predicted.

    Args:
        p: Exponent of mitigation, not negative.
        q: Exponent of compensation, not negative.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices; output () or (B,).

    Raises:
        ValueError: if ``p`` or ``q`` is negative.
        UserError: for soft targets.

    State, cost: none; two softmaxes and a (B, C) table of factors.

    Source: Wang et al., arXiv 2008.10032, without the objectness branch of detection. The paper counts
    samples while it trains; here they are those of the training set from the start. The target's probability is
    bounded below by 0.01 in C, as in the authors' code. An empty class counts as one sample.

    Example:
        >>> loss = SeesawLoss(p=1.0, q=0.0, class_counts=[4, 1], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1])).exp()  # the rare class weighs 1/4 as negative of the other
        tensor([1.2500, 2.0000])
    """

    one_class_a_sample = True

    def __init__(
        self,
        p: float = 0.8,
        q: float = 2.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        if p < 0 or q < 0:
            raise ValueError(f"p and q must not be negative, got {p} and {q}")
        self.p, self.q = p, q

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the log counts, (C,)."""
        return counts.clamp(min=1).log()

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        log_n = self.of_classes(logits)
        column = hard(target, self)[:, None]
        log_sigma = logits.detach().log_softmax(1)
        floor = log_sigma.gather(1, column).clamp(min=math.log(0.01))
        # at the target itself both factors are 1
        factors = (log_sigma - floor).clamp_(min=0).mul_(self.q)
        factors.add_((log_n - log_n[column]).clamp_(max=0), alpha=self.p)
        return cross_entropy(logits, target, shift=factors, reduction=self.reduction)

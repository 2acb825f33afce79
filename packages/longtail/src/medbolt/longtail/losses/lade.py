"""Label distribution disentangling (LADE): logits that estimate a density ratio, whatever the class frequencies."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss, log_prior
from medbolt.longtail.losses.inputs import class_logits


class LADELoss(ClassCountsLoss):
    r"""Add to prior cross entropy a bound that makes each logit a log density ratio under balanced classes.

    .. math::
        L = \frac{1}{B}\sum_i \mathrm{CE}(z_i + \log \pi, y_i) - \alpha \sum_c \pi_c (A_c - B_c - \lambda B_c^2), \quad
        A_c = \operatorname*{mean}_{i:\, y_i = c} z_{ic}, \quad
        B_c = \log \frac{1}{B} \sum_i \frac{1/C}{\pi_{y_i}} e^{z_{ic}}

    :math:`A_c - B_c` is the Donsker-Varadhan bound of the divergence of class c from all classes in equal parts, whose
    samples are those of the batch weighted by :math:`1/(C\pi_{y_i})`. To predict under class frequencies q, add
    :math:`\log q` to the logits; for equal ones they are used as they are.

    Args:
        alpha: Weight of the bound.
        regularization: Lambda, which keeps the bound from drifting.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The bound is one number a batch, added to each sample's loss.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; output () or (B,).

    State, cost: none; a softmax over classes and one over the batch. Under DDP the bound sees the local batch.

    Source: Hong et al., arXiv 2012.00321. The public code weights the sum in :math:`B_c` by
    :math:`1/(C\pi_c)` of the column instead of the sample's :math:`1/(C\pi_{y_i})`, which only shifts it and leaves
    the unbalanced batch as it is; here samples are weighted, as sampling from balanced classes requires. A class that
    is absent from the batch has :math:`A_c = 0`; an empty class counts as one sample.

    Example:
        >>> loss = LADELoss(class_counts=[3, 1])
        >>> loss(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1])).item()  # the bound is 0: (3 log(4/3) + log(4)) / 4
        0.5623...
    """

    one_class_a_sample = True

    def __init__(
        self,
        alpha: float = 0.1,
        regularization: float = 0.1,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        self.alpha, self.regularization = alpha, regularization

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the log frequencies, (C,)."""
        return log_prior(counts)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        log_pi = self.of_classes(logits)
        losses = cross_entropy(logits, target, shift=log_pi)
        return reduce(losses + self.alpha * self._bound(logits, target, log_pi), self.reduction)

    def _bound(self, logits: Tensor, target: Tensor, log_pi: Tensor) -> Tensor:
        num_classes = logits.shape[1]
        if target.is_floating_point():
            members = target.to(logits)
            number, own = members.sum(0), (members * logits).sum(0)
            log_weight = (members @ (-log_pi).exp()).log()
        else:
            number = torch.bincount(target, minlength=num_classes)
            own = logits.new_zeros(num_classes).index_add(0, target, logits.gather(1, target[:, None]).squeeze(1))
            log_weight = -log_pi[target]
        own = own / number.to(own).clamp(min=1e-8)
        weighted = logits + log_weight[:, None]
        # logsumexp over the batch, by the faster kernel of softmax: at the largest entry nothing cancels
        everyone = weighted.amax(0) - weighted.log_softmax(0).amax(0) - math.log(num_classes * len(logits))
        return -(log_pi.exp() * (own - everyone - self.regularization * everyone.square())).sum()

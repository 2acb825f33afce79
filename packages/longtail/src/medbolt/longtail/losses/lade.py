"""Label distribution disentangling (LADE): logits that estimate a density ratio, whatever the class frequencies."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
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
    Its gradient is by hand: torch.func does not go through it, second derivatives do.

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
        losses = cross_entropy(logits, target, shift=log_pi, reduction=self.reduction)
        target = target.to(logits) if target.is_floating_point() else target
        bound = _Bound.apply(logits, target, log_pi, self.regularization)
        return torch.add(losses, bound, alpha=-self.alpha * (len(logits) if self.reduction == "sum" else 1))


class _Bound(Function):
    r"""The bound, (), with its gradient by hand, for torch's logsumexp over the batch is slow.

    .. math::
        \frac{\partial}{\partial z_{ic}} = \frac{\pi_c \mathbb{1}_{y_i = c}}{n_c} - \pi_c (1 + 2 \lambda B_c) q_{ic},
        \qquad q_{ic} = \frac{e^{z_{ic}} / \pi_{y_i}}{\sum_j e^{z_{jc}} / \pi_{y_j}}
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, log_pi: Tensor, regularization: float) -> Tensor:
        """Return the bound; keep what the gradient needs."""
        size, num_classes = logits.shape
        pi, weight = log_pi.exp(), _rarity(target, log_pi)
        if target.is_floating_point():
            number, own = target.sum(0), (target * logits).sum(0)
        else:
            of_target = logits.gather(1, target[:, None]).squeeze(1)
            own = logits.new_zeros(num_classes).index_add_(0, target, of_target)
            number = torch.bincount(target, minlength=num_classes)
        number = number.to(logits).clamp_(min=1e-8)
        highest = logits.amax(0)  # keeps the exponents in range
        terms = (logits - highest).mul_(math.log2(math.e)).exp2_().mul_(weight[:, None])  # exp2 is the faster kernel
        total = terms.sum(0)
        everyone = (total / (num_classes * size)).log_().add_(highest)
        slope = torch.addcmul(pi, pi, everyone, value=2 * regularization).div_(total)
        ctx.regularization = regularization
        ctx.save_for_backward(logits, target, log_pi, terms, pi / number, slope)
        return torch.dot(pi, own / number - torch.addcmul(everyone, everyone, everyone, value=regularization))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient; where that is to be differentiated in turn, from the logits themselves."""
        (gradient,) = gradients
        logits, target, log_pi, terms, share, slope = ctx.saved_tensors
        if torch.is_grad_enabled():
            weighted = logits + _rarity(target, log_pi).log()[:, None]
            everyone = weighted.logsumexp(0) - math.log(logits.numel())
            terms, slope = weighted.softmax(0), log_pi.exp() * (1 + 2 * ctx.regularization * everyone)
        result = terms * (-gradient * slope)
        share = gradient * share
        if target.is_floating_point():
            return result.addcmul_(target, share), None, None, None
        return result.scatter_add_(1, target[:, None], share[target][:, None]), None, None, None


def _rarity(target: Tensor, log_pi: Tensor) -> Tensor:
    r"""Return :math:`1 / \pi_{y_i}`, (B,)."""
    rarity = (-log_pi).exp()
    if target.is_floating_point():
        return (target * rarity).sum(1)  # no product of matrices, which autocast would round
    return rarity[target]

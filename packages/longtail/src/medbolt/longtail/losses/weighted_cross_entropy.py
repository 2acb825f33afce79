"""Weighted cross entropy: rare classes count more."""

from collections.abc import Sequence

from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.inputs import class_logits
from medbolt.longtail.losses.weights import Weighting, check_beta, check_power, class_weights


class WeightedCrossEntropyLoss(ClassCountsLoss):
    r"""Weight cross entropy by class: by inverse, square-root, effective or logarithmic frequency.

    .. math:: \ell_i = -w_{y_i} \log p_{i,y_i}, \qquad \textstyle\sum_c w_c = C

    The weights are those of :func:`~medbolt.longtail.losses.weights.class_weights`. The mean is taken over samples, so
    that a batch of one class keeps its weight.

    Args:
        weighting: ``"inverse"`` :math:`1/n_c^\rho`, ``"sqrt"`` :math:`1/\sqrt{n_c}`, ``"effective"``
            :math:`(1-\beta)/(1-\beta^{n_c})`, or ``"log"`` :math:`1-\log(n_c/n_{\max})`.
        beta: Of ``"effective"``, in [0, 1). The paper uses 0.9999.
        power: Exponent :math:`\rho` of ``"inverse"``, not negative; DisAlign's generalised re-weighting takes 1.2.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; output () or (B,).

    Raises:
        ValueError: if ``beta`` is outside [0, 1) or ``power`` negative.

    State, cost: none; one softmax.

    Source: Cui et al., arXiv 1901.05555 (effective number); Zhang et al., arXiv 2103.16370 (power); MONICA's RW and
    WeightedSoftmax. ``weight=`` of torch's cross entropy, which MONICA uses, divides by the weights of the batch, so
    that they cancel where a batch has one class. An empty class has weight 0.

    Example:
        >>> loss = WeightedCrossEntropyLoss(class_counts=[90, 10], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1]))  # log(2) times 0.2 and 1.8
        tensor([0.1386, 1.2477])
    """

    one_class_a_sample = True

    def __init__(
        self,
        weighting: Weighting = "inverse",
        beta: float = 0.9999,
        power: float = 1.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        check_beta(beta)
        check_power(power)
        self.weighting: Weighting = weighting
        self.beta, self.power = beta, power

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the weights, (C,)."""
        return class_weights(counts, self.weighting, self.beta, self.power)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        return cross_entropy(logits, target, weight=self.of_classes(logits), reduction=self.reduction)

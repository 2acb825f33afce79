"""Class-balanced loss: weighting by the effective number of samples."""

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.focal import check_gamma, sigmoid_focal
from medbolt.longtail.losses.inputs import class_logits
from medbolt.longtail.losses.weights import check_beta, class_weights, sample_weights


class ClassBalancedLoss(ClassCountsLoss):
    r"""Weight a sample's loss by the inverse effective number of samples of its class.

    .. math::
        \ell_i = w_{y_i} L(z_i, y_i), \qquad w_c \propto \frac{1-\beta}{1-\beta^{n_c}}, \quad \textstyle\sum_c w_c = C

    L is sigmoid focal loss, sigmoid cross entropy (both summed over the classes) or softmax cross entropy.

    Args:
        loss: ``"focal"``, ``"sigmoid"`` or ``"softmax"``.
        beta: In [0, 1): 0 weights all classes alike, towards 1 a class by its inverse frequency. Below about
            1 / (1 - beta) samples a weight is nearly the inverse frequency.
        gamma: Focusing exponent of ``"focal"``, not negative.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities or, not with ``"softmax"``,
        labels, over which the weight of a sample is averaged; 1 for one without labels. Output () or (B,).

    Raises:
        ValueError: if ``beta`` is outside [0, 1) or ``gamma`` negative.

    State, cost: none; one sigmoid an entry, or one softmax.

    Source: Cui et al., arXiv 1901.05555. MONICA's CBLoss puts softmax probabilities into a binary cross entropy,
    which is neither form of the paper. An empty class has weight 0. The paper has one label a sample; that
    several are averaged, so that healthy samples keep their loss, is ours.

    Example:
        >>> loss = ClassBalancedLoss(loss="softmax", beta=0.99, class_counts=[500, 5], reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1]))
        tensor([0.0652, 1.3211])
    """

    def __init__(
        self,
        loss: Literal["focal", "sigmoid", "softmax"] = "focal",
        beta: float = 0.9999,
        gamma: float = 2.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        check_beta(beta)
        check_gamma(gamma)
        self.loss: Literal["focal", "sigmoid", "softmax"] = loss
        self.beta = beta
        self.gamma = gamma if loss == "focal" else 0.0
        self.one_class_a_sample = loss == "softmax"

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the weights, (C,)."""
        return class_weights(counts, "effective", self.beta)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        weights = self.of_classes(logits)
        if self.loss == "softmax":
            return cross_entropy(logits, target, weight=weights, reduction=self.reduction)
        return reduce(sample_weights(target, weights) * sigmoid_focal(logits, target, self.gamma), self.reduction)

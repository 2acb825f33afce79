"""Label-aware smoothing: frequent classes, of which networks are too sure, are smoothed more."""

import math
from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss, smallest_count
from medbolt.longtail.losses.inputs import class_logits


class LabelAwareSmoothingLoss(ClassCountsLoss):
    r"""Smooth the label of a class the more, the more samples it has.

    .. math::
        \ell_i = -(1 - \varepsilon_{y_i}) \log p_{i,y_i} - \varepsilon_{y_i} \frac{1}{C} \sum_c \log p_{ic}, \quad
        \varepsilon_c = \varepsilon_t + (\varepsilon_h - \varepsilon_t)\,
        f\!\left(\frac{n_c - n_{\min}}{n_{\max} - n_{\min}}\right)

    with f(x) = sin(πx/2) (concave), x (linear) or 1 - cos(πx/2) (convex).

    Args:
        head_smoothing: Smoothing of the most frequent class, in [0, 1).
        tail_smoothing: Smoothing of the rarest class, in [0, 1).
        shape: How smoothing grows from the one to the other.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities, which weigh the losses of
        the classes; output () or (B,).

    Raises:
        ValueError: if a smoothing is outside [0, 1).

    State, cost: none; one softmax.

    Source: Zhong et al. (MiSLAS), arXiv 2104.00466, ImageNet-LT's values. As in the authors' code, and in
    torch's ``label_smoothing``, the smoothed mass goes to all C classes; in the paper to the other C - 1. Classes of
    equal counts all get ``tail_smoothing``.

    Example:
        >>> loss = LabelAwareSmoothingLoss(0.4, 0.0, class_counts=[9, 1], reduction="none")
        >>> loss(torch.tensor([[4.0, 0.0], [0.0, 4.0]]), torch.tensor([0, 1]))
        tensor([0.8181, 0.0181])
    """

    one_class_a_sample = True

    def __init__(
        self,
        head_smoothing: float = 0.3,
        tail_smoothing: float = 0.0,
        shape: Literal["concave", "linear", "convex"] = "concave",
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        for smoothing in (head_smoothing, tail_smoothing):
            if not 0 <= smoothing < 1:
                raise ValueError(f"smoothing must be in [0, 1), got {smoothing}")
        self.head_smoothing, self.tail_smoothing = head_smoothing, tail_smoothing
        self.shape: Literal["concave", "linear", "convex"] = shape

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the smoothing of each class, (C,)."""
        smallest = smallest_count(counts)
        x = (counts - smallest).clamp(min=0) / (counts.max() - smallest).clamp(min=1)
        if self.shape == "concave":
            x = (x * (math.pi / 2)).sin()
        elif self.shape == "convex":
            x = 1 - (x * (math.pi / 2)).cos()
        return self.tail_smoothing + (self.head_smoothing - self.tail_smoothing) * x

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        smoothing = self.of_classes(logits)
        if target.is_floating_point():
            target = target.to(logits)
            spread = (target * smoothing).mean(1, keepdim=True)  # no product of matrices, which autocast would round
            smooth = spread + target * (1 - smoothing)
        else:
            smoothing = smoothing[target][:, None]
            smooth = (
                (smoothing / logits.shape[1]).repeat(1, logits.shape[1]).scatter_add_(1, target[:, None], 1 - smoothing)
            )
        return cross_entropy(logits, smooth, reduction=self.reduction)

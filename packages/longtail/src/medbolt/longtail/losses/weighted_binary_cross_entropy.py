"""Weighted binary cross entropy: present labels of rare findings count more."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor

from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.inputs import class_logits, target_matrix


class WeightedBinaryCrossEntropyLoss(ClassCountsLoss):
    r"""Weigh the present labels of each class by its ratio of absent to present ones.

    .. math:: \ell_{ic} = -w_c\, y_{ic} \log p_{ic} - (1 - y_{ic}) \log(1 - p_{ic}), \qquad
        w_c = \min\!\left(\Big(\frac{N - n_c}{n_c}\Big)^{\rho},\ w_{\max}\right)

    for multi-label data, with sigmoid probabilities p.

    Args:
        num_samples: Training samples N; told by the task with the counts if not given. Where nobody tells, it is the
            sum of the counts, which suits one label a sample.
        power: Exponent :math:`\rho`; 1 balances present and absent, 0.5 half-way, 0 is binary cross entropy.
        max_weight: Bound :math:`w_{\max}`, positive, without which the rarest findings drown the rest.
        class_counts: Present labels of each class in training; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B, C) labels in [0, 1], or (B,) int64 class indices; output () or (B, C).

    Raises:
        ValueError: if ``max_weight`` or ``num_samples`` is not positive.

    State, cost: none; a few operations an entry.

    Source: the ``pos_weight`` of torch's ``BCEWithLogitsLoss``, from the counts. A class without present labels, or
    present everywhere, counts as having one present, or absent.

    Example:
        >>> loss = WeightedBinaryCrossEntropyLoss(class_counts=[50, 10], num_samples=100, reduction="none")
        >>> loss(torch.zeros(1, 2), torch.ones(1, 2))  # log(2) times 1 and 9
        tensor([[0.6931, 6.2383]])
    """

    def __init__(
        self,
        num_samples: int | None = None,
        power: float = 1.0,
        max_weight: float = 100.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction, num_samples)
        if max_weight <= 0:
            raise ValueError(f"max_weight must be positive, got {max_weight}")
        self.power, self.max_weight = power, max_weight

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the weights of present labels, (C,)."""
        absent = (self.samples(counts) - counts).clamp(min=1)
        return (absent / counts.clamp(min=1)).pow(self.power).clamp(max=self.max_weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        target, weights = target_matrix(target, logits), self.of_classes(logits)
        return F.binary_cross_entropy_with_logits(logits, target, pos_weight=weights, reduction=self.reduction)

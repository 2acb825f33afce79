"""Two-way loss: present labels above absent ones, within each sample and within each class."""

import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.inputs import class_logits, target_matrix

_HIDDEN = -1e30


class TwoWayLoss(nn.Module):
    r"""Rank present above absent labels in each sample, and positive above negative samples for each class.

    .. math::
        L = \operatorname*{mean}_i\, \ell(z_{i\cdot}, y_{i\cdot})
        + \operatorname*{mean}_c\, \ell(z_{\cdot c}, y_{\cdot c}), \quad
        \ell(z, y) = \log\Big(1 + \Big[\sum_{y_k = 0} e^{z_k / T_n}\Big]^{T_n}
        \Big[\sum_{y_k = 1} e^{-z_k / T_p}\Big]^{T_p}\Big)

    for multi-label data. Samples without present labels and classes without positive samples in the batch are left out
    of the means.

    Args:
        positive_temperature: :math:`T_p`, positive; larger looks at all present labels, smaller at the worst one.
        negative_temperature: :math:`T_n`, positive, for absent labels.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The class-wise part is one number a batch, given to each sample.

    Shapes:
        logits (B, C) float; target (B, C) labels 0 or 1 (a label above 0 is present), or (B,) int64 class indices;
        output () or (B,).

    Raises:
        ValueError: if a temperature is not positive.

    State, cost: none; four logarithms of sums over the (B, C) entries. The class-wise part wants large batches; under
    DDP it sees the local batch.

    Source: Kobayashi, CVPR 2023, "Two-way multi-label loss". A batch without present labels has loss 0,
    where the public code gives NaN.

    Example:
        >>> TwoWayLoss()(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).item()  # log(2) by sample, log(1 + 0) by class
        0.6931...
    """

    def __init__(
        self,
        positive_temperature: float = 4.0,
        negative_temperature: float = 1.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if positive_temperature <= 0 or negative_temperature <= 0:
            raise ValueError(f"temperatures must be positive, got {positive_temperature} and {negative_temperature}")
        self.positive_temperature, self.negative_temperature = positive_temperature, negative_temperature
        self.reduction: Reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        present = target_matrix(target, logits) > 0
        by_sample, by_class = (self._ranking(logits, present, dim) for dim in (1, 0))
        samples, classes = present.any(1).sum().clamp(min=1), present.any(0).sum().clamp(min=1)
        # so scaled, the mean over the batch is the mean over the samples with labels
        losses = by_sample * (len(logits) / samples) + by_class.sum() / classes
        return reduce(losses, self.reduction)

    def _ranking(self, logits: Tensor, present: Tensor, dim: int) -> Tensor:
        positive, negative = self.positive_temperature, self.negative_temperature
        lowest = positive * (-logits / positive).masked_fill(~present, _HIDDEN).logsumexp(dim)
        highest = negative * (logits / negative).masked_fill(present, _HIDDEN).logsumexp(dim)
        return F.softplus(lowest + highest).where(present.any(dim), 0.0)

"""Range loss: the widest spread within classes shrinks, the nearest two classes move apart."""

import torch
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.inputs import hard, precise

_SMALLEST = 1e-12


class RangeLoss(nn.Module):
    r"""Penalise the k largest distances within each class and too near a pair of class means, in the batch.

    .. math::
        L = \alpha \sum_c \frac{k}{\sum_{j \le k} 1/D_{cj}}
        + \beta \Big[ m - \min_{c \ne c'} \|\mu_c - \mu_{c'}\|_2^2 \Big]_+

    :math:`D_{cj}` is the j-th largest squared distance between two features of class c, :math:`\mu_c` the mean feature
    of class c in the batch. A penalty on features, to be added to a classification loss. A class with a single sample
    in the batch has no range, a batch of one class no pair of means; a class with fewer than k pairs uses those it
    has.

    Args:
        num_ranges: Number k of largest distances a class, at least 1.
        margin: Squared distance m that the nearest class means should have, not negative.
        intra_weight: Weight :math:`\alpha` of the ranges.
        inter_weight: Weight :math:`\beta` of the margin.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The loss is one number a batch, given to each sample.

    Shapes:
        features (B, D) float; target (B,) int64 class indices; output () or (B,).

    Raises:
        ValueError: if ``num_ranges`` is below 1 or ``margin`` negative.
        UserError: for soft targets.

    State, cost: none; B x B distances. Under DDP each process sees its own batch.

    Source: Zhang et al., arXiv 1611.08976, with MONICA's values; distances of means are squared as those
    within are. MONICA applies it to the logits and trains with nothing else; here it takes features, and the
    classification loss is the user's.

    Example:
        >>> features, target = torch.tensor([[0.0], [2.0], [9.0]]), torch.tensor([0, 0, 1])
        >>> RangeLoss(intra_weight=1.0)(features, target)  # one range of 2 squared, means 8 apart
        tensor(4.)
    """

    def __init__(
        self,
        num_ranges: int = 2,
        margin: float = 0.1,
        intra_weight: float = 0.5,
        inter_weight: float = 0.5,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if num_ranges < 1 or margin < 0:
            raise ValueError(f"num_ranges must be at least 1 and margin not negative, got {num_ranges} and {margin}")
        self.num_ranges, self.margin = num_ranges, margin
        self.intra_weight, self.inter_weight = intra_weight, inter_weight
        self.reduction: Reduction = reduction

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        features = precise(features)
        classes, group = hard(target, self).unique(return_inverse=True)
        loss = self.intra_weight * self._intra(features, group, len(classes))
        if len(classes) > 1:
            loss = loss + self.inter_weight * (self.margin - _nearest_means(features, group, len(classes))).relu()
        return reduce(loss.expand(len(features)), self.reduction)

    def _intra(self, features: Tensor, group: Tensor, num_groups: int) -> Tensor:
        first, second = _same_group_pairs(group)
        with torch.no_grad():
            far_first = torch.cdist(features, features)[first, second].argsort(descending=True)
            order = far_first[group[first[far_first]].argsort(stable=True)]
            of_pair = group[first[order]]
            rank = torch.arange(len(order), device=order.device) - torch.searchsorted(of_pair, of_pair)
            widest = order[rank < self.num_ranges]
        first, second = first[widest], second[widest]
        distances = (features[first] - features[second]).square().sum(1).clamp(min=_SMALLEST)
        inverse = features.new_zeros(num_groups).index_add(0, group[first], 1 / distances)
        number = torch.bincount(group[first], minlength=num_groups)
        return (number / inverse.where(number > 0, 1.0)).sum()


def _same_group_pairs(group: Tensor) -> tuple[Tensor, Tensor]:
    first, second = torch.triu_indices(len(group), len(group), offset=1, device=group.device)
    same = group[first] == group[second]
    return first[same], second[same]


def _nearest_means(features: Tensor, group: Tensor, num_groups: int) -> Tensor:
    """Return the squared distance of the two nearest group means, ()."""
    sums = features.new_zeros(num_groups, features.shape[1]).index_add(0, group, features)
    means = sums / torch.bincount(group, minlength=num_groups)[:, None]
    with torch.no_grad():
        nearest = torch.cdist(means, means).fill_diagonal_(torch.inf).argmin()
    return (means[nearest // num_groups] - means[nearest % num_groups]).square().sum()

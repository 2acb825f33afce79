"""AUROC and average precision of head, medium and tail classes, from one sort a class."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from medbolt.longtail.metrics.class_groups import Average, ClassGroups
from medbolt.longtail.metrics.group_recall import check_groups


class GroupRanking(Metric):
    r"""Mean AUROC and mean average precision of the classes in each group, each class against the rest.

    Args:
        num_classes: Number of classes C.
        groups: Which classes are head, medium and tail.
        average: ``"class"`` or ``"group"``; see :class:`~medbolt.longtail.GroupRecall`.

    Shapes:
        ``update(scores, target)`` takes (B, C) float scores and (B,) int64 classes, or (B, C) 0/1 labels;
        ``compute()`` returns a dict of ``auroc/head``, ``.../medium``, ``.../tail``, ``.../average`` and the same of
        ``average_precision``, each () float32; NaN for a group without a class that has samples and, for AUROC, others.
        A class with a score that is NaN counts as one without samples.

    Raises:
        ValueError: for another ``average``, or a class in ``groups`` that there is not.

    State, cost: all scores, gathered from all processes, and a sort of N numbers a class, which both share.

    Source: MONICA, arXiv 2410.02010, ranks raw logits; probabilities rank samples otherwise. Give what you mean.

    Example:
        >>> metric = GroupRanking(2, ClassGroups(head=(0,), medium=(), tail=(1,)))
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.3, 0.7]]), torch.tensor([0, 1, 0]))
        >>> metric.compute()["auroc/tail"], metric.compute()["average_precision/tail"]  # second of three
        (tensor(0.5000), tensor(0.5000))
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    scores: list[Tensor]
    targets: list[Tensor]

    def __init__(self, num_classes: int, groups: ClassGroups, average: Average = "class") -> None:
        super().__init__()
        check_groups(num_classes, groups, average)
        self.num_classes, self.groups = num_classes, groups
        self.average: Average = average
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.add_state("targets", [], dist_reduce_fx="cat")

    def update(self, scores: Tensor, target: Tensor) -> None:
        """Keep a batch."""
        self.scores.append(scores.float())
        self.targets.append(target)

    def compute(self) -> dict[str, Tensor]:
        """Return the means."""
        scores = [self.scores] if isinstance(self.scores, Tensor) else self.scores  # in one piece after a sync
        values = _rankings(scores, dim_zero_cat(self.targets)).float()
        means = {name: self.groups.means(row, self.average) for name, row in zip(_NAMES, values, strict=True)}
        return {f"{name}/{group}": value for name, row in means.items() for group, value in row.items()}


def class_auroc(scores: Tensor, target: Tensor) -> Tensor:
    r"""Return for each class the probability that one of its samples scores above another, ties counting one half.

    Args:
        scores: (N, C) float.
        target: (N,) int64 classes, or (N, C) 0/1 labels.

    Returns:
        (C,) float64; NaN for a class that no sample or every sample belongs to, or that has a score that is NaN.

    Example:
        >>> class_auroc(torch.tensor([[0.1], [0.4], [0.35], [0.8]]), torch.tensor([[0], [0], [1], [1]]))
        tensor([0.7500], dtype=torch.float64)
    """
    return _rankings([scores], target)[0]


def class_average_precision(scores: Tensor, target: Tensor) -> Tensor:
    r"""Return for each class the mean, over its samples, of the precision among those that score as high or higher.

    Args:
        scores: (N, C) float.
        target: (N,) int64 classes, or (N, C) 0/1 labels.

    Returns:
        (C,) float64; NaN for a class without samples, or that has a score that is NaN.

    Example:
        >>> class_average_precision(torch.tensor([[0.1], [0.4], [0.35], [0.8]]), torch.tensor([[0], [0], [1], [1]]))
        tensor([0.8333], dtype=torch.float64)
    """
    return _rankings([scores], target)[1]


_NAMES = ("auroc", "average_precision")


def _rankings(scores: Sequence[Tensor], target: Tensor) -> Tensor:
    """Return the areas and average precisions of all classes, (2, C) float64."""
    areas, precisions = [], []
    for ordered, own in _sorted(scores, target):
        positive, negative = len(own), len(ordered) - len(own)
        if len(ordered) and ordered[-1].isnan():  # which sort last
            areas.append(torch.nan)
            precisions.append(torch.nan)
            continue
        below, not_above = torch.searchsorted(ordered, own), torch.searchsorted(ordered, own, right=True)
        # of pairs with all samples those among the class's own make half of their number
        wins = (int(below.sum()) + int(not_above.sum()) - positive**2) / 2
        areas.append(wins / (positive * negative) if positive and negative else torch.nan)
        found, listed = positive - torch.searchsorted(own, own), len(ordered) - below
        precisions.append((found / listed.double()).mean().item())  # of none NaN
    return torch.tensor([areas, precisions], dtype=torch.float64, device=target.device)


def _sorted(scores: Sequence[Tensor], target: Tensor) -> list[tuple[Tensor, Tensor]]:
    """Return for each class all scores and those of its own samples, both sorted."""
    columns = torch.cat([part.detach().T for part in scores], dim=1)  # one copy, which may be sorted in place
    if target.ndim == 2:
        own = [column[flags.bool()] for column, flags in zip(columns, target.T, strict=True)]
    else:
        by_class = target.argsort(stable=True)
        own = list(columns[target[by_class], by_class].split(torch.bincount(target, minlength=len(columns)).tolist()))
    if columns.device.type == "cpu":  # torch sorts positions along with the values, which takes many times longer
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:  # numpy sorts without the interpreter's lock
            list(pool.map(np.ndarray.sort, columns.numpy()))
    else:
        columns = columns.sort(dim=1).values
    return [(everyone, mine.sort().values) for everyone, mine in zip(columns, own, strict=True)]

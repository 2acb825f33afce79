"""Recall of head, medium and tail classes."""

import torch
from torch import Tensor
from torchmetrics import Metric

from medbolt.core import ClassRecall
from medbolt.longtail.metrics.class_groups import Average, ClassGroups


class GroupRecall(ClassRecall):
    r"""Mean recall of the classes in each group; what papers on long tails call its accuracy.

    .. math:: R_g = \frac{1}{|\{c \in g : n_c > 0\}|} \sum_{c \in g : n_c > 0} \frac{\mathrm{TP}_c}{n_c}

    Args:
        num_classes: Number of classes C.
        groups: Which classes are head, medium and tail.
        average: What ``average`` is: ``"class"``, the mean over classes (balanced accuracy), or ``"group"``, the mean
            over groups, by which MONICA ranks.

    Shapes:
        ``update(prediction, target)`` takes class scores (B, C) float or classes (B,) int64, and targets (B,) int64;
        ``compute()`` returns a dict of ``head``, ``medium``, ``tail``, ``average``, each () float32; NaN for a group
        none of whose classes occur.

    Raises:
        ValueError: for another ``average``, or a class in ``groups`` that there is not.

    State, cost: 2 C counts, added up over processes.

    Source: MONICA, arXiv 2410.02010, which counts a class that does not occur as recall 0; here it is left out.

    Example:
        >>> metric = GroupRecall(3, ClassGroups(head=(0,), medium=(1,), tail=(2,)))
        >>> metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 0, 2]))
        >>> metric.compute()["head"], metric.compute()["medium"], metric.compute()["average"]
        (tensor(1.), tensor(nan), tensor(0.5000))
    """

    def __init__(self, num_classes: int, groups: ClassGroups, average: Average = "class") -> None:
        super().__init__(num_classes)
        check_groups(num_classes, groups, average)
        self.groups = groups
        self.average: Average = average

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch."""
        super().update(predicted_class(prediction), target)

    def compute(self) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the means."""
        return self.groups.means(super().compute(), self.average)


class GroupF1(Metric):
    r"""Mean F1 of the classes in each group, each class against the rest.

    .. math:: F_c = \frac{2\,\mathrm{TP}_c}{n_c + \hat n_c}

    with the numbers of samples :math:`n_c` and of predictions :math:`\hat n_c` of the class.

    Args:
        num_classes: Number of classes C.
        groups: Which classes are head, medium and tail.
        average: ``"class"`` or ``"group"``; see :class:`GroupRecall`.

    Shapes:
        As :class:`GroupRecall`. A class without samples is left out.

    Raises:
        ValueError: for another ``average``, or a class in ``groups`` that there is not.

    State, cost: 3 C counts, added up over processes.

    Source: MONICA, arXiv 2410.02010.

    Example:
        >>> metric = GroupF1(2, ClassGroups(head=(0,), medium=(), tail=(1,)))
        >>> metric.update(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]))
        >>> metric.compute()["head"], metric.compute()["tail"]
        (tensor(0.6667), tensor(0.6667))
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    counts: Tensor

    def __init__(self, num_classes: int, groups: ClassGroups, average: Average = "class") -> None:
        super().__init__()
        check_groups(num_classes, groups, average)
        self.num_classes, self.groups = num_classes, groups
        self.average: Average = average
        self.add_state("counts", torch.zeros(3, num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch."""
        prediction = predicted_class(prediction)
        counted = (target[prediction == target], target, prediction)
        self.counts += torch.stack([torch.bincount(classes, minlength=self.num_classes) for classes in counted])

    def compute(self) -> dict[str, Tensor]:
        """Return the means."""
        right, total, predicted = self.counts.float()
        f1 = (2 * right / (total + predicted)).where(total > 0, torch.nan)
        return self.groups.means(f1, self.average)


def predicted_class(prediction: Tensor) -> Tensor:
    """Return the classes, (B,), of the highest scores, (B, C), or of what are classes already.

    Example:
        >>> predicted_class(torch.tensor([[0.1, 0.9]]))
        tensor([1])
    """
    return prediction.max(1).indices if prediction.ndim == 2 else prediction  # torch's argmax takes three times longer


def check_groups(num_classes: int, groups: ClassGroups, average: str) -> None:
    """Refuse groups with classes that there are not.

    Raises:
        ValueError: if so, or for an unknown average.

    Example:
        >>> check_groups(3, ClassGroups((0,), (1,), (2,)), "class")
    """
    if max([*groups.head, *groups.medium, *groups.tail], default=0) >= num_classes:
        raise ValueError(f"groups must hold classes below num_classes={num_classes}, got {groups}")
    if average not in ("class", "group"):
        raise ValueError(f"average must be 'class' or 'group', got {average!r}")

"""Recall class by class, and its mean over the classes that occur."""

import torch
from torch import Tensor
from torchmetrics import Metric


class ClassRecall(Metric):
    r"""Recall of each class, :math:`\mathrm{TP}_c / n_c`; NaN for a class without samples.

    Args:
        num_classes: Number of classes C.

    Shapes:
        ``update(prediction, target)`` takes class scores (B, C) float or classes (B,) int64, and targets (B,) int64;
        ``compute()`` returns (C,) float32.

    Example:
        >>> metric = ClassRecall(3)
        >>> metric.update(torch.tensor([0, 1, 1]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor([0.5000, 1.0000,    nan])
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    correct: Tensor
    total: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.add_state("correct", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("total", torch.zeros(num_classes, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch."""
        prediction = prediction.argmax(1) if prediction.ndim == 2 else prediction
        self.total += torch.bincount(target, minlength=self.num_classes)
        self.correct += torch.bincount(target[prediction == target], minlength=self.num_classes)

    def compute(self) -> Tensor:
        """Return the recalls."""
        return self.correct.float() / self.total.float()


class BalancedAccuracy(ClassRecall):
    r"""Mean recall over the classes that occur among the targets.

    .. math:: \frac{1}{|\{c : n_c > 0\}|} \sum_{c : n_c > 0} \frac{\mathrm{TP}_c}{n_c}

    torchmetrics' macro accuracy counts a class that was predicted but never occurs as recall 0; scikit-learn and this
    metric leave it out.

    Args:
        num_classes: Number of classes C.

    Example:
        >>> metric = BalancedAccuracy(3)
        >>> metric.update(torch.tensor([0, 2, 1]), torch.tensor([0, 0, 1]))
        >>> metric.compute()
        tensor(0.7500)
    """

    def compute(self) -> Tensor:
        """Return the mean recall."""
        return super().compute().nanmean()


class LabelBalancedAccuracy(Metric):
    r"""Balanced accuracy of each label at the threshold 1/2, averaged over the labels.

    .. math:: \frac{1}{L} \sum_l \frac{1}{2} \left( \frac{\mathrm{TP}_l}{P_l} + \frac{\mathrm{TN}_l}{N_l} \right)

    Where a label is always present, or never, its one recall counts.

    Args:
        num_labels: Number of labels L.

    Shapes:
        ``update(probability, target)`` takes (B, L) float and (B, L) of 0 and 1; ``compute()`` returns () float32.

    Example:
        >>> metric = LabelBalancedAccuracy(1)
        >>> metric.update(torch.tensor([[0.9], [0.4], [0.1]]), torch.tensor([[1], [1], [0]]))
        >>> metric.compute()
        tensor(0.7500)
    """

    higher_is_better = True
    is_differentiable = False
    full_state_update = False
    right: Tensor
    total: Tensor

    def __init__(self, num_labels: int) -> None:
        super().__init__()
        for name in ("right", "total"):  # of absent ones, of present ones
            self.add_state(name, torch.zeros(2, num_labels, dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, probability: Tensor, target: Tensor) -> None:
        """Count a batch."""
        present = target.bool()
        groups, right = torch.stack([~present, present]), (probability > 0.5) == present
        self.total += groups.sum(1)
        self.right += (groups & right).sum(1)

    def compute(self) -> Tensor:
        """Return the mean."""
        return (self.right / self.total).nanmean(0).nanmean()

"""Choose among predictions by how well they treat all classes."""

from collections.abc import Iterable

import torch
from torch import Tensor


def balanced_accuracies(predictions: Iterable[Tensor], target: Tensor, num_classes: int) -> Tensor:
    """Return the balanced accuracy of each of several predictions, float64.

    Args:
        predictions: Each (N,) int64 classes.
        target: (N,) int64 classes, the same on all processes.
        num_classes: Number of classes.

    Example:
        >>> balanced_accuracies([torch.tensor([0, 0]), torch.tensor([0, 1])], torch.tensor([0, 1]), 2)
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    total = torch.bincount(target, minlength=num_classes).double()
    right = [torch.bincount(target[prediction == target], minlength=num_classes) for prediction in predictions]
    return (torch.stack(right) / total).nanmean(1)  # a class without samples is 0 / 0


def best_by_balanced_accuracy(predictions: Iterable[Tensor], target: Tensor, num_classes: int) -> int:
    """Return the place of the first of the best predictions; see :func:`balanced_accuracies`.

    Example:
        >>> best_by_balanced_accuracy([torch.tensor([0, 0]), torch.tensor([0, 1])], torch.tensor([0, 1]), 2)
        1
    """
    return int(balanced_accuracies(predictions, target, num_classes).argmax())

"""Choose among predictions by how well they treat all classes."""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from medbolt.core.errors import UserError


def accuracies(
    predictions: Iterable[Tensor], target: Tensor, num_classes: int, prior: Sequence[float] | None = None
) -> Tensor:
    """Return the accuracy that each of several predictions would have under other class frequencies, float64.

    Args:
        predictions: Each (N,) int64 classes.
        target: (N,) int64 classes, the same on all processes. A class without samples does not count.
        num_classes: Number of classes.
        prior: Frequencies of the classes, any scale; by default equal ones, for balanced accuracy.

    Raises:
        UserError: if no class that the prior has has samples.

    Example:
        >>> accuracies([torch.tensor([0, 0]), torch.tensor([0, 1])], torch.tensor([0, 1]), 2)
        tensor([0.5000, 1.0000], dtype=torch.float64)
    """
    total = torch.bincount(target, minlength=num_classes).double()
    weight = torch.ones_like(total) if prior is None else torch.as_tensor(prior).to(total)
    weight = weight.where(total > 0, 0.0)
    if not weight.any():
        raise UserError("no validation sample is of a class that test_prior has; give tau, or other frequencies.")
    right = [torch.bincount(target[prediction == target], minlength=num_classes) for prediction in predictions]
    return (torch.stack(right) / total.clamp(min=1)) @ (weight / weight.sum())


def best_by_balanced_accuracy(predictions: Iterable[Tensor], target: Tensor, num_classes: int) -> int:
    """Return the place of the first of the best predictions; see :func:`accuracies`.

    Example:
        >>> best_by_balanced_accuracy([torch.tensor([0, 0]), torch.tensor([0, 1])], torch.tensor([0, 1]), 2)
        1
    """
    return int(accuracies(predictions, target, num_classes).argmax())

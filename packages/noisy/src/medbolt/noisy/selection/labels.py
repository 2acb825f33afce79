"""What diagnostics count with: the labels of training samples by index, and sums over processes."""

from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from medbolt.core.data.base import DataModuleWrapper, ImageDataModule


@dataclass(frozen=True)
class Labels:
    """Given and clean labels by index.

    Args:
        given: (N,) int64 labels to train with, by index in the base training set; -1 where it has no training sample.
        clean: (N,) int64 labels before the noise; ``None`` if nobody knows them.
        class_names: Names of the classes.
    """

    given: Tensor
    clean: Tensor | None
    class_names: list[str]

    def to(self, device: torch.device) -> "Labels":
        """Return the labels on a device."""
        clean = None if self.clean is None else self.clean.to(device)
        return replace(self, given=self.given.to(device), clean=clean)


def training_labels(data: Any) -> Labels | None:
    """Return the class labels of a data module's training samples; ``None`` unless it is one of medbolt with such."""
    if not isinstance(data, ImageDataModule):
        return None
    given = data.dataset("train").targets
    if given is None or given.ndim != 1:
        return None
    noisy: Any = data
    while not hasattr(noisy, "clean_targets") and isinstance(noisy, DataModuleWrapper):
        noisy = noisy.data
    clean = _by_index(noisy, noisy.clean_targets("train")) if hasattr(noisy, "clean_targets") else None
    return Labels(_by_index(data, given), clean, list(data.class_names))


def of_each_class(chosen: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """Count the chosen samples of each class, (C,) int64, without waiting for an accelerator."""
    classes = torch.arange(num_classes, device=labels.device)
    return (chosen[:, None] & (labels[:, None] == classes)).sum(0)


def reduced(trainer: Trainer, values: Tensor, how: Literal["sum", "max"]) -> Tensor:
    """Return the sum or the largest of the processes' values, on every process."""
    result = trainer.strategy.reduce(values, reduce_op=how)  # pyright: ignore[reportArgumentType]
    assert isinstance(result, Tensor)
    return result


def _by_index(data: ImageDataModule, targets: Tensor) -> Tensor:
    labels = torch.full((data.train_size,), -1)
    labels[data.dataset("train").rows] = targets.long()
    return labels

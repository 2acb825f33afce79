"""The class counts a callback works with: given by the user, or those of the data module."""

from collections.abc import Sequence
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from torch import Tensor

from medbolt.core.errors import UserError


def known_counts(callback: Callback, given: Sequence[int] | None, trainer: Trainer) -> Tensor:
    """Return the training samples of each class, (C,) int64.

    Args:
        callback: Who asks, for the message.
        given: Its ``class_counts``.
        trainer: The trainer, whose data module may have ``class_counts``.

    Raises:
        UserError: if nobody says, or one of them is negative or all are zero.
    """
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    counts = getattr(data, "class_counts", None) if given is None else given
    name = type(callback).__name__
    if counts is None:
        raise UserError(
            f"{name} needs to know how many training samples each class has, but the data do not say; give it "
            "class_counts=[...], one a class."
        )
    values = torch.as_tensor(counts)
    if values.ndim != 1 or values.is_floating_point() or (values < 0).any() or not values.any():
        raise UserError(f"{name} got class_counts {list(counts)}; give it a list of integers, not all zero.")
    return values.long()

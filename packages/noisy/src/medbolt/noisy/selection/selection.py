"""What a method that selects samples tells of a batch, for those who watch it."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor


@dataclass(frozen=True)
class Selection:
    """The samples of a batch that a method let the network learn from.

    A callback that selects sets its attribute ``selection`` in every training batch;
    :class:`~medbolt.noisy.SelectionQuality` and :class:`~medbolt.noisy.CollapseMonitor` read it when the batch is over.

    Args:
        index: (B,) int64 positions in the base training set; ``None`` where the batch does not tell.
        kept: (B,) bool, detached.
        target: (B,) int64 labels used in place of the given ones, if the method corrects labels.

    Example:
        >>> Selection(torch.tensor([7, 3]), kept=torch.tensor([True, False])).kept.sum()
        tensor(1)
    """

    index: Tensor | None
    kept: Tensor
    target: Tensor | None = None


def selections(trainer: Trainer) -> Iterator[tuple[Selection, Tensor]]:
    """Yield what a trainer's callbacks and module selected in this batch, with the index, where the batch has one."""
    callbacks: list[Any] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    for selector in [*callbacks, trainer.lightning_module]:
        selection = getattr(selector, "selection", None)
        if isinstance(selection, Selection) and selection.index is not None:
            yield selection, selection.index

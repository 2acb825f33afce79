"""The data card: what a run was trained and tested on, and whether the two overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from medbolt.core.errors import UserError


@dataclass(frozen=True)
class DataCard:
    """Numbers of samples by split and class, and what training and test share.

    Example:
        >>> DataCard("HAM10000", ["nv", "mel"], {"train": [980, 669], "test": [265, 192]}).total("train")
        1649
    """

    name: str
    class_names: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    """Samples of each class, by split."""
    groups: Mapping[str, int] = field(default_factory=dict)
    """Number of groups (patients, lesions), by split."""
    shared_ids: int = 0
    """Samples that are both in training and test."""
    shared_groups: int = 0
    """Groups that are both in training and test."""

    def total(self, split: str) -> int:
        """Return the number of labels in a split."""
        return sum(self.counts[split])


def data_card(data: Any) -> DataCard | None:
    """Describe a data module, as far as it tells about itself without decoding an image.

    Args:
        data: An :class:`~medbolt.core.data.base.ImageDataModule`, or any data module with ``class_names`` and
            ``class_counts``.

    Returns:
        The card, or None if the data module tells nothing.
    """
    names, name = getattr(data, "class_names", None), type(data).__name__
    if names is None:
        return None
    if not hasattr(data, "dataset"):
        counts = getattr(data, "class_counts", None)
        return None if counts is None else DataCard(name, list(names), {"train": [int(count) for count in counts]})
    splits = {split: found for split in ("train", "val", "test") if (found := _split(data, split)) is not None}
    train, test = splits.get("train"), splits.get("test")
    return DataCard(
        name,
        list(names),
        {split: _class_counts(found.targets, len(names)) for split, found in splits.items()},
        {split: len(set(found.groups)) for split, found in splits.items() if found.groups is not None},
        shared_ids=_shared(train, test, "ids"),
        shared_groups=_shared(train, test, "groups"),
    )


def _split(data: Any, split: str) -> Any:
    """Return a split with labels; testing does not need the others, so they may be missing."""
    try:
        found = data.dataset(split)
    except UserError:
        return None
    return found if found.targets is not None else None


def _class_counts(targets: Any, classes: int) -> list[int]:
    values = np.asarray(targets)
    counts = np.bincount(values, minlength=classes) if values.ndim == 1 else values.sum(0).round()
    return [int(count) for count in counts]


def _shared(train: Any, test: Any, column: str) -> int:
    first, second = getattr(train, column, None), getattr(test, column, None)
    return 0 if first is None or second is None else len(set(first) & set(second))

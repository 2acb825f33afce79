"""A part of the training samples: learning curves and few-shot experiments."""

import numpy as np

from medbolt.core.data.base import DataModuleWrapper, ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.splits import membership, seeded_keys
from medbolt.core.errors import UserError


class Subset(DataModuleWrapper):
    """Train on a share of every class, or on a few samples of each; validation and test stay whole.

    Every class keeps at least one sample, and the ``index`` of a sample stays its position in the whole training set.
    With the same seed a smaller subset is part of every larger one, whichever of ``fraction`` and ``shots`` they use.

    Args:
        data: The data module to take training samples from.
        fraction: Share of each class to keep, in (0, 1].
        shots: Samples of each class to keep instead; all of them where a class has fewer.
        seed: Which samples.
        group_by: Keep or leave whole groups (patients); the last group of a class may then exceed its number.

    Raises:
        ValueError: unless exactly one of ``fraction`` and ``shots`` is given, and in range.
        UserError: if ``group_by`` is set and the data have no groups.

    Example:
        >>> from medbolt.core.data.medmnist import MedMNISTDataModule
        >>> data = Subset(MedMNISTDataModule("breastmnist"), shots=5)
        >>> data.class_counts  # doctest: +SKIP
        [5, 5]
    """

    def __init__(
        self,
        data: ImageDataModule,
        fraction: float | None = None,
        shots: int | None = None,
        seed: int = 0,
        group_by: bool = False,
    ) -> None:
        super().__init__(data)
        if (fraction is None) == (shots is None):
            raise ValueError("give either fraction or shots")
        if fraction is not None and not 0 < fraction <= 1:
            raise ValueError(f"fraction must be in (0, 1], got {fraction}")
        if shots is not None and shots < 1:
            raise ValueError(f"shots must be at least 1, got {shots}")
        self.fraction, self.shots, self.subset_seed, self.group_by = fraction, shots, seed, group_by

    def load(self, split: Split) -> ImageDataset:
        """Return a split; of the training split the chosen samples, in their old order."""
        dataset = super().load(split)
        return dataset.select(self._chosen(dataset)) if split == "train" else dataset

    def _chosen(self, dataset: ImageDataset) -> np.ndarray:
        if self.group_by and dataset.groups is None:
            raise UserError(f"{type(self.data).__name__} has no groups to keep whole; name its group column.")
        units = dataset.groups if self.group_by and dataset.groups is not None else dataset.ids
        names, unit_of = np.unique(np.asarray(units, dtype=object).astype(str), return_inverse=True)
        order = np.argsort(seeded_keys(names.tolist(), self.subset_seed), kind="stable")
        classes = membership(dataset.targets, len(dataset))
        counts = np.zeros((len(names), classes.shape[1]), dtype=np.int64)
        np.add.at(counts, unit_of, classes.astype(np.int64))
        counts = counts[order]
        before = counts.cumsum(0) - counts
        wanted = self.shots or np.maximum(np.rint((self.fraction or 1.0) * counts.sum(0)), 1)
        keep = np.zeros(len(names), dtype=bool)
        keep[order] = ((counts > 0) & (before < wanted)).any(1)
        return np.flatnonzero(keep[unit_of])

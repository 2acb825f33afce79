"""A fold of a cross-validation over the training samples of any data module."""

import numpy as np

from medbolt.core.data.base import DataModuleWrapper, ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.splits import membership, stratified_parts
from medbolt.core.errors import UserError


class CrossValidationFold(DataModuleWrapper):
    """Hold a fold of the training samples out of training, and predict or test on it.

    Folds are stratified by label and keep groups (patients) whole where the data have groups. They depend on the seed
    and the names of samples and groups, not on the order of rows. Validation stays as it is; ``predict`` and ``test``
    are on the samples held out, whose ``index`` stays their position in the base training set.

    Args:
        data: The data module whose training samples are divided.
        folds: Number of folds.
        fold: The fold held out, from 0 to ``folds`` - 1.
        seed: Another seed divides otherwise.

    Raises:
        ValueError: if there are fewer than two folds, or ``fold`` is not one of them.
        UserError: if there are fewer groups than folds, or the fold holds all samples of a class.

    Example:
        >>> import torch
        >>> from medbolt.core import SyntheticFundusDataModule
        >>> data = SyntheticFundusDataModule(200, 20, 20)
        >>> parts = [CrossValidationFold(data, folds=4, fold=k).dataset("test").rows for k in range(4)]
        >>> [len(part) for part in parts], sorted(torch.cat(parts).tolist()) == list(range(200))
        ([50, 50, 50, 50], True)
    """

    def __init__(self, data: ImageDataModule, folds: int = 5, fold: int = 0, seed: int = 0) -> None:
        super().__init__(data)
        if folds < 2 or not 0 <= fold < folds:
            raise ValueError(f"folds must be at least 2 and fold 0 to folds - 1, got folds={folds} and fold={fold}")
        self.folds, self.fold, self.fold_seed = folds, fold, seed

    def load(self, split: Split) -> ImageDataset:
        """Return a split: training samples of the other folds, or of this one for ``test``."""
        if split == "val":
            return super().load("val")
        dataset = super().load("train")
        held_out = self._folds_of(dataset) == self.fold
        return dataset.select(held_out if split == "test" else ~held_out)

    def _folds_of(self, dataset: ImageDataset) -> np.ndarray:
        classes = membership(dataset.targets, len(dataset))
        names = dataset.ids if dataset.groups is None else dataset.groups
        if len(set(names)) < self.folds:
            raise UserError(
                f"the {len(set(names))} {'samples' if dataset.groups is None else 'groups'} of "
                f"{type(self.data).__name__} cannot be divided into {self.folds} folds; use fewer folds."
            )
        part = stratified_parts(classes, names, [1 / self.folds] * self.folds, self.fold_seed)
        outside = classes[part != self.fold].any(0)
        lost = np.flatnonzero(classes.any(0) & ~outside)
        if len(lost) and int(lost[0]) < self.num_classes:
            raise UserError(
                f"fold {self.fold} holds every training sample of class '{self.class_names[int(lost[0])]}', so none is "
                f"left to learn it from; use another seed or more folds, or leave the class out."
            )
        return part

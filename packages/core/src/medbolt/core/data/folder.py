"""Images sorted into one folder a class."""

import re
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import nn

from medbolt.core.data.base import ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.images import ImageFiles
from medbolt.core.data.locate import locate
from medbolt.core.data.splits import (
    SPLIT_NAMES,
    membership,
    named_splits,
    refuse_shared_groups,
    seeded_splits,
)
from medbolt.core.data.views import rows_of
from medbolt.core.errors import UserError, did_you_mean, listed

_SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".jp2")


class FolderDataModule(ImageDataModule):
    """Read ``root/<class>/**/<image>`` with drawn splits, or ``root/<split>/<class>/**/<image>`` with given ones.

    Splits are given where a folder called ``train`` (or ``training``) stands in the root, beside ``val`` and ``test``.
    Otherwise they are drawn, stratified by class, groups kept whole. Hidden files and files that are no images by their
    suffix are passed over.

    Args:
        root: The folder; see :func:`~medbolt.core.data.locate.locate`.
        class_names: Classes by index, names of class folders; by default all class folders, in alphabetical order.
        group: Regular expression whose first group, searched in the path below ``root``, is what no split may tear
            apart: ``"(patient[0-9]+)"``.
        fractions: Shares of training, validation and test samples, when splits are drawn.
        folds: Number of cross-validation folds, when splits are drawn; fold ``fold`` is the test set and the next one
            the validation set.
        fold: The round of the cross-validation, from 0.
        allow_group_overlap: Accept given splits that tear groups apart.
        batch_size: Samples a batch and a process.
        num_workers: Loading processes; 0 loads in the training process.
        image_size: Height and width of the default transforms; ``None`` keeps the size of the images.
        train_transform: Replaces the default training transform.
        eval_transform: Replaces the default evaluation transform.
        seed: Seed of order, augmentation and splits.
        drop_last: Leave out the last training batch when it is not full; ``"auto"`` does so when there is a full one.
        store: Folder made by ``medbolt data prepare``.

    Raises:
        UserError: if the folder is missing or has no images, a class folder is not among ``class_names``, a path has no
            group, or a group is in two splits.

    Example:
        >>> data = FolderDataModule("fundus", group="(patient[0-9]+)", fractions=(0.6, 0.2, 0.2))
        >>> data.class_names  # doctest: +SKIP
        ['diabetic', 'healthy']
    """

    def __init__(
        self,
        root: Path | str,
        class_names: list[str] | None = None,
        group: str | None = None,
        fractions: tuple[float, float, float] = (0.7, 0.1, 0.2),
        folds: int | None = None,
        fold: int = 0,
        allow_group_overlap: bool = False,
        batch_size: int = 32,
        num_workers: int = 0,
        image_size: int | None = 224,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        seed: int = 0,
        drop_last: bool | Literal["auto"] = "auto",
        store: Path | str | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, image_size, train_transform, eval_transform, seed, drop_last, store)
        self.root = root
        self.given_class_names = class_names
        self.group = group
        self.fractions, self.folds, self.fold = fractions, folds, fold
        self.allow_group_overlap = allow_group_overlap

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by class index."""
        return self.given_class_names or sorted(set(self._classes))

    def load(self, split: Split) -> ImageDataset:
        """Return a split without transform."""
        return rows_of(self._whole, np.flatnonzero(self._splits == split))

    @cached_property
    def _root(self) -> Path:
        root = locate(self.root)
        if not root.is_dir():
            raise UserError(f"{root} is no folder; name the folder that holds the class folders.")
        return root

    @cached_property
    def _names(self) -> list[str]:
        paths = (path.relative_to(self._root) for path in self._root.rglob("*") if path.suffix.lower() in _SUFFIXES)
        names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
        if not names:
            raise UserError(f"{self._root} has no images; it must hold one folder of images a class.")
        return names

    @cached_property
    def _has_splits(self) -> bool:
        return any(SPLIT_NAMES.get(name.split("/")[0].lower()) == "train" for name in self._names)

    @cached_property
    def _classes(self) -> list[str]:
        depth = 1 if self._has_splits else 0
        for name in self._names:
            if name.count("/") <= depth:
                raise UserError(
                    f"{name} of {self._root} is in no class folder; move it into one, or leave it out of the folder."
                )
        return [name.split("/")[depth] for name in self._names]

    @cached_property
    def _groups(self) -> list[str] | None:
        if self.group is None:
            return None
        try:
            found = [re.search(self.group, name) for name in self._names]
        except re.error as error:
            raise UserError(f"group '{self.group}' is no regular expression ({error}); correct it.") from error
        for name, match in zip(self._names, found, strict=True):
            if match is None:
                raise UserError(f"group '{self.group}' finds nothing in {name}; correct the expression or the name.")
        return [match[1] if match.re.groups else match[0] for match in found if match is not None]

    @cached_property
    def _whole(self) -> ImageDataset:
        number = {name: i for i, name in enumerate(self.class_names)}
        for name, folder in zip(self._names, self._classes, strict=True):
            if folder not in number:
                raise UserError(
                    f"{name} of {self._root} is in the folder of the unknown class '{folder}'"
                    f"{did_you_mean(folder, number)}; the classes are {listed(number)}."
                )
        return ImageDataset(
            images=ImageFiles(self._root, self._names),
            targets=torch.tensor([number[folder] for folder in self._classes]),
            ids=self._names,
            groups=self._groups,
        )

    @cached_property
    def _splits(self) -> np.ndarray:
        if not self._has_splits:
            classes = membership(self._whole.targets, len(self._names))
            names = self._groups or self._names
            return seeded_splits(classes, names, self.fractions, self.folds, self.fold, self.seed)
        splits = named_splits([name.split("/")[0] for name in self._names], self._names)
        if self._groups is not None and not self.allow_group_overlap:
            refuse_shared_groups("group", self._groups, splits)
        return splits

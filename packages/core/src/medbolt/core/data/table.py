"""Images listed in a CSV or Parquet file, with whatever is known about them in its columns."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from medbolt.core.data.base import ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset, Images
from medbolt.core.data.images import ImageFiles
from medbolt.core.data.locate import locate
from medbolt.core.data.manifest import Manifest, read_manifest
from medbolt.core.data.splits import membership, named_splits, refuse_shared_groups, seeded_splits
from medbolt.core.data.targets import class_targets, finding_targets, natural_order
from medbolt.core.data.views import StackedImages, rows_of
from medbolt.core.errors import UserError


class TableDataModule(ImageDataModule):
    """Read a manifest: a table with one image a row.

    Images, masks and raters' masks are named by a column, or by a pattern over columns such as
    ``"images.zip/{image_id}.jpg"``; the names are files, members of a zip file or rows of an npz array (see
    :class:`~medbolt.core.data.images.ImageFiles`). Splits come from a column. Without one they are drawn: stratified
    by label, groups kept whole, by fractions or as one round of a cross-validation; they depend on the seed and the
    names only, not on the order of the rows.

    Args:
        manifest: CSV (UTF-8) or Parquet file; see :func:`~medbolt.core.data.locate.locate`.
        image: Column or pattern that names the images.
        label: Column of the class, or columns of findings (0 or 1, or probabilities) for multi-label data; ``None``
            for data without labels.
        root: Folder that the names are relative to; that of the manifest by default.
        class_names: Classes by index; labels are these names, or all are indices. By default the labels that occur, in
            alphabetical (or numerical) order.
        id: Column of unique names; the image names by default.
        group: Column of what no split may tear apart (patient, lesion).
        domain: Column of the acquisition source (hospital, camera).
        mask: Column or pattern that names segmentation masks.
        raters: The same for raters' masks: one a rater, or a single one for npz rows with a mask a rater.
        text: Column of report sentences.
        split: Column of ``train``, ``val`` and ``test``.
        where: Keep only rows whose columns have one of these values: ``{dx: [mel, nv]}``.
        fractions: Shares of training, validation and test samples, when there is no split column.
        folds: Number of cross-validation folds. Fold ``fold`` is the test set and the next one the validation set; with
            a split column its test set stays, and fold ``fold`` of the rest is the validation set.
        fold: The round of the cross-validation, from 0.
        allow_group_overlap: Accept a split column that tears groups apart.
        batch_size: Samples a batch and a process.
        num_workers: Loading processes; 0 loads in the training process.
        image_size: Height and width of the default transforms; ``None`` keeps the size of the images.
        train_transform: Replaces the default training transform.
        eval_transform: Replaces the default evaluation transform.
        seed: Seed of order, augmentation and splits.
        drop_last: Leave out the last training batch when it is not full; ``"auto"`` does so when there is a full one.
        store: Folder made by ``medbolt data prepare``; the images themselves are not needed then.

    Raises:
        ValueError: if a list of label columns has one.
        UserError: naming the file, row, column or label that cannot be used.

    Example:
        >>> data = TableDataModule(
        ...     "ham10000/metadata.csv",
        ...     "images.zip/{image_id}.jpg",
        ...     label="dx",
        ...     group="lesion_id",
        ...     domain="dataset",
        ...     mask="masks.zip/{image_id}.png",
        ...     split="split",
        ... )  # doctest: +SKIP
        >>> data.class_counts  # doctest: +SKIP
        [196, 294, 653, 65, 669, 980, 80]
    """

    def __init__(
        self,
        manifest: Path | str,
        image: str = "image",
        label: str | list[str] | None = "label",
        root: Path | str | None = None,
        class_names: list[str] | None = None,
        id: str | None = None,
        group: str | None = None,
        domain: str | None = None,
        mask: str | None = None,
        raters: str | list[str] | None = None,
        text: str | None = None,
        split: str | None = None,
        where: dict[str, list[str]] | None = None,
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
        if isinstance(label, list) and len(label) < 2:
            raise ValueError(
                f"label={label} is a list for several findings; name a single label column without brackets"
            )
        self.manifest, self.root = manifest, root
        self.image, self.mask, self.raters = image, mask, raters
        self.label, self.given_class_names = label, class_names
        self.id, self.group, self.domain, self.text = id, group, domain, text
        self.split, self.where = split, where or {}
        self.fractions, self.folds, self.fold = fractions, folds, fold
        self.allow_group_overlap = allow_group_overlap

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by class index."""
        return self._labels[1]

    @property
    def domain_names(self) -> list[str] | None:
        """Names of the acquisition sources, by domain index; ``None`` without a domain column."""
        return None if self.domain is None else natural_order(set(self._table.texts(self.domain)))

    def load(self, split: Split) -> ImageDataset:
        """Return a split without transform."""
        return rows_of(self._whole, np.flatnonzero(self._splits == split))

    @cached_property
    def _table(self) -> Manifest:
        table = read_manifest(self.manifest).where(self.where)
        if len(table) == 0:
            raise UserError(f"no row of {table.path} is left by where; keep more values.")
        return table

    @cached_property
    def _labels(self) -> tuple[Tensor | None, list[str]]:
        if self.label is None:
            return None, self.given_class_names or []
        if isinstance(self.label, str):
            return class_targets(self._table, self.label, self.given_class_names)
        names = self.given_class_names or self.label
        if len(names) != len(self.label):
            raise UserError(f"there are {len(names)} class_names for {len(self.label)} label columns; give as many.")
        return finding_targets(self._table, self.label), names

    @cached_property
    def _whole(self) -> ImageDataset:
        table, names = self._table, self.domain_names
        domains = None
        if names is not None and self.domain is not None:
            number = {name: i for i, name in enumerate(names)}
            domains = torch.tensor([number[name] for name in table.texts(self.domain)])
        layers: dict[str, Images] = {} if self.mask is None else {"mask": self._files(self.mask, mask=True)}
        if isinstance(self.raters, str):
            layers["raters"] = self._files(self.raters, mask=True)
        elif self.raters is not None:
            layers["raters"] = StackedImages([self._files(rater, mask=True) for rater in self.raters])
        return ImageDataset(
            images=self._files(self.image, mask=False),
            targets=self._labels[0],
            ids=self._ids,
            groups=None if self.group is None else table.texts(self.group),
            domains=domains,
            texts=None if self.text is None else [text or "" for text in table.cells(self.text)],
            layers=layers,
        )

    @cached_property
    def _ids(self) -> list[str]:
        ids = self._table.references(self.image) if self.id is None else self._table.texts(self.id)
        first: dict[str, int] = {}
        for position, name in enumerate(ids):
            if first.setdefault(name, position) != position:
                raise UserError(
                    f"{self._table.place(first[name])} and {self._table.place(position)} have the same id '{name}'; "
                    "remove one or name a column of unique ids."
                )
        return ids

    @cached_property
    def _splits(self) -> np.ndarray:
        table = self._table
        named = None if self.split is None else named_splits(table.texts(self.split), table.places())
        groups = None if self.group is None else table.texts(self.group)
        if named is not None and groups is not None and not self.allow_group_overlap:
            refuse_shared_groups(str(self.group), groups, named)
        if named is not None and self.folds is None:
            return named
        classes = membership(self._labels[0], len(table))
        return seeded_splits(classes, groups or self._ids, self.fractions, self.folds, self.fold, self.seed, named)

    def _files(self, pattern: str, mask: bool) -> ImageFiles:
        if self.root is None:
            root = self._table.path.parent
        else:
            root = Path(self.root) if self.store is not None else locate(self.root)
        files = ImageFiles(root, self._table.references(pattern), mask, self._table.places())
        if self.store is None:
            files.check()
        return files

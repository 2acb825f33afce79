"""What is wrong with a manifest and its images, found before training does not find it."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from medbolt.core.data.duplicates import difference_hash, grey_thumbnail
from medbolt.core.data.findings import (
    Finding,
    Look,
    count_findings,
    duplicate_findings,
    group_findings,
    id_findings,
    image_findings,
    label_findings,
    split_findings,
)
from medbolt.core.data.images import ImageFiles
from medbolt.core.data.locate import locate
from medbolt.core.data.manifest import Manifest, read_manifest
from medbolt.core.data.splits import SPLIT_NAMES, SPLITS
from medbolt.core.data.targets import allowed_labels, natural_order, presence
from medbolt.core.errors import UserError


@dataclass(frozen=True, eq=False)
class ManifestCheck:
    """The result of :func:`check_manifest`.

    Args:
        manifest: The table.
        images: Its images.
        findings: What is wrong, errors first.
        class_counts: Images by class (row) and split (column).
        examples: Positions of a few readable images of each class.
    """

    manifest: Manifest
    images: ImageFiles
    findings: tuple[Finding, ...]
    class_counts: pd.DataFrame
    examples: dict[str, list[int]]

    @property
    def has_errors(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)


def check_manifest(
    manifest: Path | str,
    image: str = "image",
    label: str | Sequence[str] | None = None,
    root: Path | str | None = None,
    class_names: Sequence[str] | None = None,
    id: str | None = None,
    group: str | None = None,
    split: str | None = None,
    fewest: int = 10,
    workers: int = 0,
) -> ManifestCheck:
    """Look for what goes wrong unnoticed: leakage between splits, bad labels, images that cannot be read.

    It finds missing and unreadable images, duplicate ids, exact and near duplicates within and across splits (see
    :func:`~medbolt.core.data.duplicates.find_duplicates`), groups across splits, empty and unknown labels, unknown
    splits, and classes with few or no images in a split. Every image is decoded once.

    Args:
        manifest: CSV or Parquet file.
        image: Column or pattern that names the images, as for :class:`~medbolt.core.data.table.TableDataModule`.
        label: Column of the class, or columns of findings. The default is the column called ``label``, if there is one;
            likewise for the next three.
        root: Folder that the names are relative to; that of the manifest by default.
        class_names: The allowed labels; any by default.
        id: Column of unique names.
        group: Column of what no split may tear apart.
        split: Column of the splits.
        fewest: Classes with fewer training images are reported.
        workers: Processes that decode; 0 decodes in this one.

    Raises:
        UserError: if the manifest cannot be read or lacks a named column.

    Example:
        >>> check_manifest("metadata.csv", "images.zip/{image_id}.jpg", label="dx").has_errors  # doctest: +SKIP
        False
    """
    table = read_manifest(manifest)
    files = ImageFiles(locate(root) if root else table.path.parent, table.references(image), places=table.places())
    if label is None and "label" in table.columns:
        label = "label"
    id, group, split = (
        given or (usual if usual in table.columns else None)
        for given, usual in ((id, "id"), (group, "group"), (split, "split"))
    )
    splits = _splits(table, split)
    labels = {} if label is None else {c: table.cells(c) for c in ([label] if isinstance(label, str) else label)}
    if len(labels) > 1:
        labels = {column: [_as_number(cell) for cell in cells] for column, cells in labels.items()}
    if class_names is not None and len(labels) == 1:
        class_names = allowed_labels({cell for cells in labels.values() for cell in cells if cell}, class_names)
    looks = _look_at(files, workers)
    counts = _class_counts(labels, splits, class_names)
    findings = [
        *image_findings(files, looks),
        *id_findings(table, table.references(image) if id is None else table.cells(id)),
        *split_findings(table, split, splits),
        *group_findings(group, table, splits),
        *label_findings(table, labels, class_names),
        *count_findings(counts, fewest),
        *duplicate_findings(looks, splits, labels),
    ]
    findings.sort(key=lambda finding: finding.severity)
    readable = [position for position, look in enumerate(looks) if look.problem is None]
    return ManifestCheck(table, files, tuple(findings), counts, _examples(labels, readable))


class _Looks(Dataset[Look]):
    def __init__(self, files: ImageFiles, missing: Iterable[int]) -> None:
        self.files, self.missing = files, frozenset(missing)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Look:
        if row in self.missing:
            return Look("missing")
        try:
            image = self.files[row]
        except UserError as error:
            return Look(str(error))
        pixels = image.numpy()
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, key=repr(pixels.shape).encode()).hexdigest()
        return Look(None, difference_hash(image), grey_thumbnail(image).numpy(), digest)


def _look_at(files: ImageFiles, workers: int) -> list[Look]:
    loader = DataLoader(_Looks(files, files.missing()), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    return list(tqdm(loader, desc="reading", unit="image", mininterval=0.5))


def _as_it_is(look: Any) -> Any:
    return look


def _splits(table: Manifest, column: str | None) -> np.ndarray:
    if column is None:
        return np.full(len(table), "all")
    names = [name or "" for name in table.cells(column)]
    return np.array([SPLIT_NAMES.get(name.lower(), name) for name in names])


def _class_counts(
    labels: dict[str, list[str | None]], splits: np.ndarray, class_names: Sequence[str] | None
) -> pd.DataFrame:
    order = [name for name in (*SPLITS, "all") if name in splits]
    if len(labels) == 1:
        cells = next(iter(labels.values()))
        names = list(class_names or natural_order({cell for cell in cells if cell is not None}))
        hits = {name: np.array([cell == name for cell in cells]) for name in names}
    else:
        hits = {column: np.array([_is_present(cell) for cell in cells]) for column, cells in labels.items()}
    hits["(all)"] = np.ones(len(splits), dtype=bool)
    counts = {split: [int((hit & (splits == split)).sum()) for hit in hits.values()] for split in order}
    return pd.DataFrame(counts, index=list(hits))


def _examples(labels: dict[str, list[str | None]], readable: Sequence[int]) -> dict[str, list[int]]:
    examples: dict[str, list[int]] = {}
    for column, cells in labels.items():
        for position in readable:
            cell = cells[position]
            name = cell if len(labels) == 1 else column if _is_present(cell) else None
            if name is not None and len(examples.setdefault(name, [])) < 6:
                examples[name].append(position)
    return {name: examples[name] for name in natural_order(set(examples))}


def _as_number(cell: str | None) -> str | None:
    """Write findings alike, so that "1" and "1.0" are one label; leave what is none to be reported as it stands."""
    value = None if cell is None else presence(cell)
    return cell if value is None else str(value)


def _is_present(cell: str | None) -> bool:
    return cell is not None and (presence(cell) or 0) > 0.5

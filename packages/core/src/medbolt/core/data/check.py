"""What is wrong with a manifest and its images, found before training does not find it."""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from medbolt.core.data.duplicates import Duplicate, difference_hash, find_duplicates, thumbnail
from medbolt.core.data.images import ImageFiles
from medbolt.core.data.locate import locate
from medbolt.core.data.manifest import Manifest, read_manifest
from medbolt.core.data.splits import SPLIT_NAMES, SPLITS, groups_across
from medbolt.core.data.targets import natural_order
from medbolt.core.errors import UserError, did_you_mean, listed


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a manifest.

    Args:
        severity: ``"error"`` if training would fail or its results be false, ``"warning"`` if they might.
        message: What is wrong, in a sentence.
        pairs: Positions of the images concerned, two at a time; of a few where there are many.
    """

    severity: Literal["error", "warning"]
    message: str
    pairs: tuple[tuple[int, int], ...] = ()


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
    looks = _look_at(files, workers)
    counts = _class_counts(labels, splits, class_names)
    findings = [
        *_image_findings(files, looks),
        *_id_findings(table, table.references(image) if id is None else table.cells(id)),
        *_split_findings(table, split, splits),
        *_group_findings(group, table, splits),
        *_label_findings(table, labels, class_names),
        *_count_findings(counts, fewest),
        *_duplicate_findings(looks, splits, labels),
    ]
    findings.sort(key=lambda finding: finding.severity)
    readable = [position for position, look in enumerate(looks) if look.problem is None]
    return ManifestCheck(table, files, tuple(findings), counts, _examples(labels, readable))


class _Look(NamedTuple):
    """What one image looks like, or why it cannot be told."""

    problem: str | None
    hash: int = 0
    thumbnail: np.ndarray | None = None
    digest: str = ""


class _Looks(Dataset[_Look]):
    def __init__(self, files: ImageFiles, missing: Iterable[int]) -> None:
        self.files, self.missing = files, frozenset(missing)

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> _Look:
        if row in self.missing:
            return _Look("missing")
        try:
            image = self.files[row]
        except UserError as error:
            return _Look(str(error))
        pixels = image.numpy()
        digest = hashlib.blake2b(pixels.tobytes(), digest_size=16, key=repr(pixels.shape).encode()).hexdigest()
        return _Look(None, difference_hash(image), thumbnail(image).numpy(), digest)


def _look_at(files: ImageFiles, workers: int) -> list[_Look]:
    loader = DataLoader(_Looks(files, files.missing()), batch_size=None, num_workers=workers, collate_fn=_as_it_is)
    return list(tqdm(loader, desc="reading", unit="image", mininterval=0.5))


def _as_it_is(look: Any) -> Any:
    return look


def _splits(table: Manifest, column: str | None) -> np.ndarray:
    if column is None:
        return np.full(len(table), "all")
    names = [name or "" for name in table.cells(column)]
    return np.array([SPLIT_NAMES.get(name.lower(), name) for name in names])


def _places(table: Manifest, positions: Sequence[int]) -> str:
    rows = [str(table.frame.index[position]) for position in positions[:8]]
    more = f" and {len(positions) - 8} more" if len(positions) > 8 else ""
    return f"row{'s' if len(positions) > 1 else ''} {', '.join(rows)}{more}"


def _image_findings(files: ImageFiles, looks: Sequence[_Look]) -> Iterable[Finding]:
    missing = [row for row, look in enumerate(looks) if look.problem == "missing"]
    if missing:
        names = listed(files.references[row] for row in missing)
        yield Finding("error", f"{len(missing)} of {len(looks)} images are not found in {files.root}: {names}.")
    for look in looks:
        if look.problem not in (None, "missing"):
            yield Finding("error", str(look.problem))


def _id_findings(table: Manifest, ids: Sequence[str | None]) -> Iterable[Finding]:
    for name, count in Counter(ids).items():
        if count > 1:
            rows = [position for position, other in enumerate(ids) if other == name]
            yield Finding("error", f"{_places(table, rows)} have the same id '{name}'.")


def _split_findings(table: Manifest, column: str | None, splits: np.ndarray) -> Iterable[Finding]:
    if column is None:
        yield Finding("warning", "no split column is named: leakage between splits was not looked for.")
        return
    for name in dict.fromkeys(splits):
        if name not in SPLITS:
            rows = np.flatnonzero(splits == name).tolist()
            hint = did_you_mean(str(name), SPLITS)
            yield Finding("error", f"{_places(table, rows)}: '{name}' is no split{hint}; use train, val and test.")
    for name in SPLITS:
        if name not in splits:
            yield Finding("warning", f"the {name} split is empty.")


def _group_findings(column: str | None, table: Manifest, splits: np.ndarray) -> Iterable[Finding]:
    if column is None:
        yield Finding("warning", "no group column is named: patients across splits were not looked for.")
        return
    groups = table.cells(column)
    if None in groups:
        rows = [position for position, group in enumerate(groups) if group is None]
        yield Finding("warning", f"{_places(table, rows)}: no {column}.")
    known = [(group, split) for group, split in zip(groups, splits, strict=True) if group is not None]
    if shared := groups_across([group for group, _ in known], [split for _, split in known]):
        names = listed(f"{group} ({', '.join(where)})" for group, where in shared.items())
        yield Finding("error", f"{len(shared)} of {column} are in more than one split: {names}.")


def _label_findings(
    table: Manifest, labels: dict[str, list[str | None]], class_names: Sequence[str] | None
) -> Iterable[Finding]:
    if not labels:
        yield Finding("warning", "no label column is named: labels were not checked.")
    for column, cells in labels.items():
        empty = [position for position, cell in enumerate(cells) if cell is None]
        if empty:
            yield Finding("error", f"{_places(table, empty)}: no {column}.")
        allowed = {"0", "1"} if len(labels) > 1 else set(class_names or ())
        for name in natural_order({cell for cell in cells if cell is not None} - allowed if allowed else set()):
            rows = [position for position, cell in enumerate(cells) if cell == name]
            hint = did_you_mean(name, allowed)
            yield Finding("error", f"{_places(table, rows)}: unknown {column} '{name}'{hint}.")


def _class_counts(
    labels: dict[str, list[str | None]], splits: np.ndarray, class_names: Sequence[str] | None
) -> pd.DataFrame:
    order = [name for name in (*SPLITS, "all") if name in splits]
    if len(labels) == 1:
        cells = next(iter(labels.values()))
        names = list(class_names or natural_order({cell for cell in cells if cell is not None}))
        hits = {name: np.array([cell == name for cell in cells]) for name in names}
    else:
        hits = {column: np.array([cell == "1" for cell in cells]) for column, cells in labels.items()}
    hits["(all)"] = np.ones(len(splits), dtype=bool)
    counts = {split: [int((hit & (splits == split)).sum()) for hit in hits.values()] for split in order}
    return pd.DataFrame(counts, index=list(hits))


def _count_findings(counts: pd.DataFrame, fewest: int) -> Iterable[Finding]:
    for name, row in counts.drop(index="(all)").iterrows():
        for split, count in row.items():
            if count == 0:
                severity = "error" if split == "train" else "warning"
                yield Finding(severity, f"class '{name}' has no image in the {split} split.")
            elif count < fewest and split in ("train", "all"):
                yield Finding("warning", f"class '{name}' has only {count} images in the {split} split.")


def _duplicate_findings(
    looks: Sequence[_Look], splits: np.ndarray, labels: dict[str, list[str | None]]
) -> Iterable[Finding]:
    readable = np.array([row for row, look in enumerate(looks) if look.problem is None], dtype=np.int64)
    if len(readable) < 2:
        return
    seen = [looks[row] for row in readable]
    found = find_duplicates(
        np.array([look.hash for look in seen], dtype=np.uint64),
        np.stack([look.thumbnail for look in seen if look.thumbnail is not None]),
        np.array([look.digest for look in seen]),
    )
    pairs = [Duplicate(int(readable[a]), int(readable[b]), exact) for a, b, exact in found]
    for is_exact in (True, False):
        for across in (True, False):
            some = [(a, b) for a, b, exact in pairs if exact == is_exact and (splits[a] != splits[b]) == across]
            if some:
                kind = "the same pixels" if is_exact else "nearly the same pixels"
                where = "in different splits" if across else "in one split"
                severity = "error" if across and is_exact else "warning"
                yield Finding(severity, f"{len(some)} pairs of images {where} have {kind}.", tuple(some[:24]))
    unequal = [(a, b) for a, b, exact in pairs if exact and any(cells[a] != cells[b] for cells in labels.values())]
    if unequal:
        yield Finding("warning", f"{len(unequal)} pairs of equal images have different labels.", tuple(unequal[:24]))


def _examples(labels: dict[str, list[str | None]], readable: Sequence[int]) -> dict[str, list[int]]:
    examples: dict[str, list[int]] = {}
    for column, cells in labels.items():
        for position in readable:
            cell = cells[position]
            name = column if len(labels) > 1 else cell
            if name is not None and (len(labels) == 1 or cell == "1") and len(examples.setdefault(name, [])) < 6:
                examples[name].append(position)
    return {name: examples[name] for name in natural_order(set(examples))}

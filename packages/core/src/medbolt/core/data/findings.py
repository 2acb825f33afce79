"""What may be wrong with a manifest, one function a kind of fault."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd

from medbolt.core.data.duplicates import Duplicate, find_duplicates
from medbolt.core.data.images import ImageFiles
from medbolt.core.data.manifest import Manifest
from medbolt.core.data.splits import SPLITS, groups_across
from medbolt.core.data.targets import natural_order, presence
from medbolt.core.errors import did_you_mean, listed

_SHOWN = 24  # pairs of a finding that a report shows


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


class Look(NamedTuple):
    """What one image looks like, or why it cannot be told."""

    problem: str | None
    hash: int = 0
    thumbnail: np.ndarray | None = None
    digest: str = ""


def image_findings(files: ImageFiles, looks: Sequence[Look]) -> Iterable[Finding]:
    """Find images that are missing or cannot be read."""
    missing = [row for row, look in enumerate(looks) if look.problem == "missing"]
    if missing:
        names = listed(files.references[row] for row in missing)
        yield Finding("error", f"{len(missing)} of {len(looks)} images not found in {files.root}: {names}.")
    for look in looks:
        if look.problem not in (None, "missing"):
            yield Finding("error", str(look.problem))


def id_findings(table: Manifest, ids: Sequence[str | None]) -> Iterable[Finding]:
    """Find ids that occur twice, and rows without."""
    for name, count in Counter(ids).items():
        if count > 1 or name is None:
            rows = [position for position, other in enumerate(ids) if other == name]
            what = "no id" if name is None else f"the same id '{name}'"
            yield Finding("error", f"{_places(table, rows)}: {what}.")


def split_findings(table: Manifest, column: str | None, splits: np.ndarray) -> Iterable[Finding]:
    """Find rows of no split, and splits without rows."""
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


def group_findings(column: str | None, table: Manifest, splits: np.ndarray) -> Iterable[Finding]:
    """Find groups in more than one split, and rows without."""
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
        yield Finding("error", f"{len(shared)} of {column} in more than one split: {names}.")


def label_findings(
    table: Manifest, labels: dict[str, list[str | None]], class_names: Sequence[str] | None
) -> Iterable[Finding]:
    """Find labels that are empty or unknown."""
    if not labels:
        yield Finding("warning", "no label column is named: labels were not checked.")
    for column, cells in labels.items():
        empty = [position for position, cell in enumerate(cells) if cell is None]
        if empty:
            yield Finding("error", f"{_places(table, empty)}: no {column}.")
        given = {cell for cell in cells if cell is not None}
        if len(labels) > 1:
            allowed = {cell for cell in given if presence(cell) is not None}
        else:
            allowed = set(class_names or given)
        for name in natural_order(given - allowed):
            rows = [position for position, cell in enumerate(cells) if cell == name]
            hint = did_you_mean(name, class_names or ())
            yield Finding("error", f"{_places(table, rows)}: unknown {column} '{name}'{hint}.")


def count_findings(counts: pd.DataFrame, fewest: int) -> Iterable[Finding]:
    """Find classes without images in a split, or with few to train on."""
    for name, row in counts.drop(index="(all)").iterrows():
        for split, count in row.items():
            if count == 0:
                severity = "error" if split == "train" else "warning"
                yield Finding(severity, f"class '{name}' has no image in the {split} split.")
            elif count < fewest and split in ("train", "all"):
                yield Finding(
                    "warning", f"class '{name}' has only {count} image{'s' if count > 1 else ''} in the {split} split."
                )


def duplicate_findings(
    looks: Sequence[Look], splits: np.ndarray, labels: dict[str, list[str | None]]
) -> Iterable[Finding]:
    """Find images that are the same, or nearly, and equal images of different labels."""
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
                yield Finding(severity, f"{_pairs(some)} of images {where} with {kind}.", tuple(some[:_SHOWN]))
    unequal = [(a, b) for a, b, exact in pairs if exact and any(cells[a] != cells[b] for cells in labels.values())]
    if unequal:
        yield Finding("warning", f"{_pairs(unequal)} of equal images with different labels.", tuple(unequal[:_SHOWN]))


def _pairs(pairs: Sequence[tuple[int, int]]) -> str:
    return f"{len(pairs)} pair{'s' if len(pairs) > 1 else ''}"


def _places(table: Manifest, positions: Sequence[int]) -> str:
    rows = [str(table.frame.index[position]) for position in positions[:8]]
    more = f" and {len(positions) - 8} more" if len(positions) > 8 else ""
    return f"row{'s' if len(positions) > 1 else ''} {', '.join(rows)}{more}"

"""Splits that are stratified, keep groups whole, and depend on nothing but the seed and the names."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medbolt.core.errors import UserError, did_you_mean

SPLITS: tuple[Literal["train", "val", "test"], ...] = ("train", "val", "test")
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""What a split may be called in a manifest or as a folder, in lower case."""


def seeded_keys(names: Sequence[str], seed: int) -> np.ndarray:
    """Return a random number for each name, which any machine and library version draws alike.

    Sorting by it shuffles; the order of two names does not depend on which other names there are.

    Args:
        names: N names.
        seed: Another seed gives unrelated numbers.

    Returns:
        (N,) uint64, equal for equal names.

    Example:
        >>> bool(seeded_keys(["a", "b"], 0)[1] == seeded_keys(["b"], 0)[0])
        True
    """
    digest = hashlib.blake2b(digest_size=8, key=str(seed).encode())
    keys = np.empty(len(names), dtype=np.uint64)
    for i, name in enumerate(names):
        one = digest.copy()
        one.update(name.encode())
        keys[i] = int.from_bytes(one.digest(), "big")
    return keys


def membership(targets: Tensor | None, size: int) -> np.ndarray:
    """Return which classes each sample counts for.

    Args:
        targets: (N,) int64 classes; (N, C) float multi-label targets, positive above 1/2, or soft targets (all rows sum
            to 1), of which the largest counts; ``None`` when there are no labels.
        size: Number of samples N.

    Returns:
        (N, C) bool; one column where there are no labels, and a last one for samples without any positive label.

    Example:
        >>> membership(torch.tensor([1, 0]), 2)
        array([[False,  True],
               [ True, False]])
    """
    if targets is None:
        return np.ones((size, 1), dtype=bool)
    if targets.ndim == 1:
        return torch.nn.functional.one_hot(targets).bool().numpy()
    if torch.allclose(targets.sum(1), torch.ones(len(targets))):
        return torch.nn.functional.one_hot(targets.argmax(1), targets.shape[1]).bool().numpy()
    positive = targets > 0.5
    return torch.cat([positive, ~positive.any(1, keepdim=True)], dim=1).numpy()


def stratified_parts(
    classes: np.ndarray, names: Sequence[str], fractions: Sequence[float], seed: int = 0
) -> np.ndarray:
    r"""Divide samples into parts of given fractions with equal class shares, keeping equal names together.

    Groups are placed one after another, those with a large share of a class first and ties in seeded random order,
    each into the part where it adds least to the chi-square distance of the class counts from their expectation,
    :math:`\sum_{pc} (n_{pc} - f_p n_c)^2 / (f_p n_c)`. Sizes count as one more class.

    Args:
        classes: (N, C) bool from :func:`membership`.
        names: N group names, the samples' own names where nothing need stay together.
        fractions: Share of each part, adding up to 1; a part of share 0 stays empty.
        seed: Seed of the ties.

    Returns:
        (N,) int64, the part of each sample.

    Example:
        >>> classes = np.eye(2, dtype=bool)[[0] * 8 + [1] * 4]
        >>> parts = stratified_parts(classes, list("abcdefghijkl"), [0.75, 0.25])
        >>> np.bincount(parts[:8]), np.bincount(parts[8:])
        (array([6, 2]), array([3, 1]))
    """
    groups, group_of = np.unique(np.asarray(names, dtype=object).astype(str), return_inverse=True)
    counts = np.zeros((len(groups), classes.shape[1] + 1))
    np.add.at(counts, group_of, np.column_stack([classes, np.ones(len(classes))]))
    totals = np.maximum(counts.sum(0), 1)
    used = np.flatnonzero(np.asarray(fractions) > 0)
    expected = np.asarray(fractions, dtype=float)[used, None] * totals
    order = np.lexsort((seeded_keys(groups.tolist(), seed), -(counts**2 / totals).sum(1)))
    placed = np.zeros_like(expected)
    part_of = np.empty(len(groups), dtype=np.int64)
    for group in order:
        added = counts[group]
        increase = (added * (2 * (placed - expected) + added) / expected).sum(1)
        part = int(increase.argmin())
        placed[part] += added
        part_of[group] = used[part]
    return part_of[group_of]


def named_splits(names: Sequence[str], places: Sequence[str]) -> np.ndarray:
    """Return the splits that a manifest's column or the folders name.

    Args:
        names: N names such as ``"train"`` and ``"Validation"`` (see :data:`SPLIT_NAMES`).
        places: Where each was found, for messages.

    Returns:
        (N,) str: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        UserError: naming the first row with another name.

    Example:
        >>> named_splits(["train", "Validation"], ["row 2", "row 3"]).tolist()
        ['train', 'val']
    """
    for name, place in zip(names, places, strict=True):
        if name.lower() not in SPLIT_NAMES:
            raise UserError(
                f"{place} is in split '{name}'{did_you_mean(name, SPLITS)}; splits are called train, val and test."
            )
    return np.array([SPLIT_NAMES[name.lower()] for name in names])


def seeded_splits(
    classes: np.ndarray,
    names: Sequence[str],
    fractions: tuple[float, float, float],
    folds: int | None = None,
    fold: int = 0,
    seed: int = 0,
    fixed: np.ndarray | None = None,
) -> np.ndarray:
    """Return the split of each sample, by fractions or as one round of a cross-validation.

    Without folds, training, validation and test get their fractions. With folds, fold ``fold`` is the test set and the
    next one the validation set; where ``fixed`` splits name a test set, that one stays and ``fold`` is the validation
    set.

    Args:
        classes: (N, C) bool from :func:`membership`.
        names: N group names that stay together.
        fractions: Shares of training, validation and test.
        folds: Number of folds; ``None`` splits by fractions.
        fold: The round, 0 to folds - 1.
        seed: Seed of the split.
        fixed: (N,) str splits of a manifest, used with folds only.

    Returns:
        (N,) str: ``"train"``, ``"val"`` or ``"test"``.

    Raises:
        UserError: if the fractions do not add up to 1, or there is no such fold.

    Example:
        >>> splits = seeded_splits(np.ones((10, 1), dtype=bool), list("abcdefghij"), (0.6, 0.2, 0.2))
        >>> [int((splits == name).sum()) for name in SPLITS]
        [6, 2, 2]
    """
    if folds is None:
        if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
            raise UserError(
                "fractions must be three numbers, of training, validation and test, none negative, that add up to 1, "
                f"got {tuple(fractions)}."
            )
        return np.array(SPLITS)[stratified_parts(classes, names, fractions, seed)]
    if folds < (2 if fixed is not None else 3) or not 0 <= fold < folds:
        raise UserError(
            f"fold must be 0 to folds - 1 of at least 2 folds, 3 without a test set; got fold {fold} of {folds}."
        )
    splits = np.full(len(classes), "train")
    free = np.ones(len(classes), dtype=bool) if fixed is None else fixed != "test"
    splits[~free] = "test"
    free_names = [name for name, is_free in zip(names, free, strict=True) if is_free]
    part = np.full(len(classes), -1)
    part[free] = stratified_parts(classes[free], free_names, [1 / folds] * folds, seed)
    splits[part == fold] = "val" if fixed is not None else "test"
    if fixed is None:
        splits[part == (fold + 1) % folds] = "val"
    return splits


def groups_across(groups: Sequence[str], splits: Sequence[str] | np.ndarray) -> dict[str, list[str]]:
    """Return the groups that are in more than one split, with their splits.

    Example:
        >>> groups_across(["ann", "ann", "bob"], ["train", "test", "val"])
        {'ann': ['train', 'test']}
    """
    found: dict[str, dict[str, None]] = defaultdict(dict)
    for group, split in zip(groups, splits, strict=True):
        found[group][str(split)] = None
    return {group: list(names) for group, names in found.items() if len(names) > 1}


def refuse_shared_groups(column: str, groups: Sequence[str], splits: np.ndarray) -> None:
    """Refuse groups that are in more than one split.

    Raises:
        UserError: naming the first one.
    """
    if shared := groups_across(groups, splits):
        group, found = next(iter(shared.items()))
        others = f" and {len(shared) - 1} more" if len(shared) > 1 else ""
        where = " and ".join(name for name in SPLITS if name in found)
        raise UserError(
            f"{column} '{group}'{others} is in the splits {where}; move all its images into one split, or set "
            "allow_group_overlap."
        )

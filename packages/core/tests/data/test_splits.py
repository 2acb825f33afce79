import numpy as np
import pytest
import torch
from sklearn.model_selection import StratifiedGroupKFold

from medbolt.core.data.splits import (
    groups_across,
    membership,
    named_splits,
    refuse_shared_groups,
    seeded_keys,
    seeded_splits,
    stratified_parts,
)
from medbolt.core.errors import UserError


def one_hot(labels) -> np.ndarray:
    return membership(torch.as_tensor(labels), len(labels))


def names(numbers) -> list[str]:
    return [f"n{number}" for number in numbers]


def test_keys_depend_on_seed_and_name_only():
    keys = seeded_keys(["ann", "bob", "ann"], 3)
    assert keys[0] == keys[2] != keys[1]
    assert keys[1] == seeded_keys(["bob"], 3)[0] != seeded_keys(["bob"], 4)[0]
    assert keys.dtype == np.uint64
    assert int(seeded_keys(["ann"], 0)[0]) == 6678400925851976323, "splits of existing data must never change"


def test_membership_of_every_kind_of_target():
    assert membership(None, 3).tolist() == [[True]] * 3
    assert membership(torch.tensor([2, 0]), 2).tolist() == [[False, False, True], [True, False, False]]
    assert membership(torch.tensor([[0.2, 0.8], [0.9, 0.1]]), 2).tolist() == [[False, True], [True, False]]
    findings = torch.tensor([[1.0, 1.0], [0.0, 0.0]])
    assert membership(findings, 2).tolist() == [[True, True, False], [False, False, True]]


def test_parts_have_the_wanted_sizes_and_class_shares():
    labels = np.random.default_rng(0).choice(5, 1000, p=[0.5, 0.3, 0.1, 0.07, 0.03])
    fractions = np.array([0.6, 0.25, 0.15])
    parts = stratified_parts(one_hot(labels), names(range(1000)), fractions.tolist(), seed=1)
    for c in range(5):
        found = np.bincount(parts[labels == c], minlength=3)
        assert np.abs(found - fractions * (labels == c).sum()).max() <= 1


def test_groups_stay_whole_and_balance_is_that_of_scikit_learn():
    rng = np.random.default_rng(0)
    ours, theirs = [], []
    for seed in range(5):
        groups = rng.integers(0, 300, 1000)
        labels = rng.choice(4, 300, p=[0.6, 0.25, 0.1, 0.05])[groups]
        parts = stratified_parts(one_hot(labels), names(groups), [0.2] * 5, seed)
        assert all(len(np.unique(parts[groups == group])) == 1 for group in np.unique(groups))
        other = np.empty(1000, dtype=int)
        folds = StratifiedGroupKFold(5, shuffle=True, random_state=seed).split(labels, labels, groups)
        for fold, (_, held) in enumerate(folds):
            other[held] = fold
        for found, chosen in ((ours, parts), (theirs, other)):
            counts = np.zeros((5, 4))
            np.add.at(counts, (chosen, labels), 1)
            found.append((((counts - counts.sum(0) / 5) ** 2) / (counts.sum(0) / 5)).sum())
    assert np.mean(ours) < 1.2 * np.mean(theirs)


def test_findings_are_stratified_too():
    findings = torch.from_numpy(np.random.default_rng(0).random((600, 6)) < [0.5, 0.2, 0.1, 0.05, 0.02, 0.01]).float()
    parts = stratified_parts(membership(findings, 600), names(range(600)), [0.5, 0.5])
    positives = np.stack([findings[parts == part].sum(0).numpy() for part in range(2)])
    assert np.abs(positives[0] - positives[1]).max() <= 4


def test_parts_do_not_depend_on_the_order_of_rows():
    labels = np.random.default_rng(0).integers(0, 3, 50)
    order = np.random.default_rng(1).permutation(50)
    first = stratified_parts(one_hot(labels), names(range(50)), [0.7, 0.1, 0.2])
    second = stratified_parts(one_hot(labels[order]), names(order), [0.7, 0.1, 0.2])
    assert (first[order] == second).all()


def test_parts_depend_on_the_seed():
    arguments = one_hot(np.arange(50) % 3), names(range(50)), [0.7, 0.3]
    assert (stratified_parts(*arguments, seed=0) != stratified_parts(*arguments, seed=1)).any()
    assert (stratified_parts(*arguments, seed=0) == stratified_parts(*arguments, seed=0)).all()


def test_a_part_without_share_stays_empty_and_few_samples_reach_the_large_parts():
    parts = stratified_parts(np.ones((3, 1), dtype=bool), ["a", "b", "c"], [0.6, 0.0, 0.4])
    assert np.bincount(parts, minlength=3).tolist() == [2, 0, 1]


def test_cross_validation_tests_everything_once():
    labels = np.arange(60) % 3
    rounds = [seeded_splits(one_hot(labels), names(range(60)), (1, 0, 0), folds=5, fold=k) for k in range(5)]
    for split in ("val", "test"):
        assert (sum((r == split).astype(int) for r in rounds) == 1).all()
    assert all(np.bincount(labels[r == "test"]).tolist() == [4, 4, 4] for r in rounds)


def test_cross_validation_beside_a_fixed_test_set():
    fixed = np.array(["test"] * 10 + ["train"] * 40)
    rounds = [
        seeded_splits(one_hot(np.arange(50) % 2), names(range(50)), (1, 0, 0), folds=4, fold=k, fixed=fixed)
        for k in range(4)
    ]
    assert all((r[:10] == "test").all() and (r[10:] != "test").all() for r in rounds)
    assert (sum((r[10:] == "val").astype(int) for r in rounds) == 1).all()


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (1.5, -0.5, 0.0), (0.8, 0.2)])
def test_fractions_must_add_up(fractions):
    with pytest.raises(ValueError, match="fractions must be three numbers, .* that add up to 1"):
        seeded_splits(one_hot([0, 1]), ["a", "b"], fractions)


@pytest.mark.parametrize(("folds", "fold"), [(2, 0), (5, 5), (5, -1)])
def test_folds_must_exist(folds, fold):
    with pytest.raises(ValueError, match="fold must be 0 to folds - 1"):
        seeded_splits(one_hot([0, 1]), ["a", "b"], (1, 0, 0), folds, fold)


def test_names_of_splits():
    given = ["Training", "valid", "TEST", "validation"]
    assert named_splits(given, given).tolist() == ["train", "val", "test", "val"]
    with pytest.raises(UserError, match=r"^row 9 is in split 'tset' \(did you mean 'test'\?\); splits are called"):
        named_splits(["tset"], ["row 9"])


def test_groups_in_two_splits_are_refused():
    groups, splits = ["ann", "bob", "ann", "cy", "bob"], np.array(["train", "val", "test", "val", "test"])
    assert groups_across(groups, splits) == {"ann": ["train", "test"], "bob": ["val", "test"]}
    with pytest.raises(
        UserError, match="^patient 'ann' and 1 more is in the splits train and test; move all its images"
    ):
        refuse_shared_groups("patient", groups, splits)
    refuse_shared_groups("patient", ["ann", "bob"], np.array(["train", "val"]))

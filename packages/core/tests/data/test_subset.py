import numpy as np
import pytest
import torch

from medbolt.core.data.base import ImageDataModule
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.subset import Subset
from medbolt.core.errors import UserError

LABELS = torch.from_numpy(np.random.default_rng(0).choice(4, 400, p=[0.7, 0.2, 0.09, 0.01]))


class Toy(ImageDataModule):
    """400 samples of four very unequal classes, in 130 groups."""

    class_names = ["a", "b", "c", "d"]

    def __init__(self, targets: torch.Tensor | None = LABELS, groups: bool = True) -> None:
        super().__init__(image_size=None)
        self.targets, self.with_groups = targets, groups

    def load(self, split):
        groups = [f"g{i // 3}" for i in range(400)] if self.with_groups else None
        ids = [f"{split}{i}" for i in range(400)]
        return ImageDataset([torch.zeros(3, 2, 2, dtype=torch.uint8)] * 400, self.targets, ids, groups)


def chosen(**options) -> set[int]:
    data = options.pop("data", None) or Toy()
    return set(Subset(data, **options).dataset("train").rows.tolist())


@pytest.mark.parametrize("fraction", [0.001, 0.1, 0.37, 1.0])
def test_a_fraction_of_every_class_and_at_least_one(fraction):
    counts = Subset(Toy(), fraction=fraction).class_counts
    expected = [max(1, round(fraction * n)) for n in LABELS.bincount().tolist()]
    assert counts == expected


def test_shots_of_every_class_or_all_there_are():
    counts = LABELS.bincount().tolist()
    assert counts[3] < 10
    assert Subset(Toy(), shots=10).class_counts == [10, 10, 10, counts[3]]


def test_smaller_subsets_are_parts_of_larger_ones():
    sets = [chosen(fraction=f) for f in (0.05, 0.1, 0.3, 0.8)]
    assert sets[0] < sets[1] < sets[2] < sets[3]
    assert chosen(shots=1) < chosen(shots=2) < chosen(shots=30)
    grouped = [chosen(fraction=f, group_by=True) for f in (0.05, 0.1, 0.3, 0.8)]
    assert grouped[0] < grouped[1] < grouped[2] < grouped[3]


def test_whole_groups():
    rows = chosen(fraction=0.1, group_by=True)
    groups = {row // 3 for row in rows}
    assert rows == {row for row in range(400) if row // 3 in groups}
    assert all((LABELS[sorted(rows)] == c).any() for c in range(4))
    assert len(rows) < 0.2 * 400
    with pytest.raises(UserError, match="Toy has no groups to keep whole; name its group column"):
        chosen(data=Toy(groups=False), shots=1, group_by=True)


def test_the_seed_decides():
    assert chosen(fraction=0.1) == chosen(fraction=0.1)
    assert chosen(fraction=0.1) != chosen(fraction=0.1, seed=1)


def test_index_order_and_other_splits_stay():
    data = Subset(Toy(), fraction=0.1)
    rows = data.dataset("train").rows
    assert (rows.diff() > 0).all()
    assert data.train_size == 400
    assert data.dataset("train")[0]["index"] == rows[0]
    assert len(data.dataset("val")) == len(data.dataset("test")) == 400


def test_findings_and_data_without_labels():
    findings = (
        torch.rand(400, 4, generator=torch.Generator().manual_seed(0)) < torch.tensor([0.5, 0.2, 0.05, 0.005])
    ).float()
    counts = Subset(Toy(findings), fraction=0.1).class_counts
    assert all(found >= max(1, round(0.1 * n)) for found, n in zip(counts, findings.sum(0).tolist(), strict=True))
    assert len(chosen(data=Toy(findings), fraction=0.1)) < 60
    assert len(chosen(data=Toy(None), fraction=0.25)) == 100


@pytest.mark.parametrize(
    "options", [{}, {"fraction": 0.5, "shots": 2}, {"fraction": 0.0}, {"fraction": 1.1}, {"shots": 0}]
)
def test_arguments_out_of_range(options):
    with pytest.raises(ValueError, match="fraction|shots"):
        Subset(Toy(), **options)

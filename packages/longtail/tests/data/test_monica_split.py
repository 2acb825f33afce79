import numpy as np
import pytest
import torch
from PIL import Image

from medbolt.core import UserError
from medbolt.longtail import MonicaSplit
from medbolt.longtail.data.monica_split import BOUNDS


@pytest.fixture
def table(tmp_path):
    """A split of DermaMNIST's seven classes, 7 to 1 samples for training."""
    rows, rng = ["path,label,split"], np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for split, sizes in (("train", range(7, 0, -1)), ("val", [1] * 7), ("test", [2] * 7)):
        for label, size in enumerate(sizes):
            for i in range(size):
                name = f"{split}_{label}_{i}.png"
                Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(tmp_path / "images" / name)
                rows.append(f"{name},{label},{split}")
    (tmp_path / "derma.csv").write_text("\n".join(rows))
    return tmp_path / "derma.csv"


def test_it_reads_the_table_and_groups_classes_as_monica_does(table):
    data = MonicaSplit(table, "dermamnist", root=table.parent / "images", image_size=16, batch_size=4)
    assert data.class_counts == [7, 6, 5, 4, 3, 2, 1]
    assert data.class_names == list("0123456")
    groups = data.class_groups
    assert (groups.head, groups.medium, groups.tail) == ((0,), (1, 2, 3, 4), (5, 6))
    data.setup("fit")
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (4, 3, 16, 16)
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [28, 7, 14]
    assert torch.bincount(data.dataset("test").targets).tolist() == [2] * 7


def test_classes_may_have_names(table):
    names = ["NV", "MEL", "BKL", "BCC", "AK", "VASC", "DF"]
    data = MonicaSplit(table, "dermamnist", root=table.parent / "images", class_names=names)
    assert data.class_names == names
    with pytest.raises(ValueError, match="dermamnist has 7 classes, got 2 class_names"):
        MonicaSplit(table, "dermamnist", class_names=["a", "b"])


@pytest.mark.parametrize("file", ["dic.npy", "train_100.npy", "labels.pkl"])
def test_files_that_may_be_pickled_are_refused_with_the_remedy(file):
    with pytest.raises(UserError, match=f"{file} may hold pickled .* medbolt.longtail.convert_monica"):
        MonicaSplit(file, "isic")


def test_every_source_has_three_groups_that_are_not_empty():
    sizes = {name: (head, medium - head, tail - medium) for name, (head, medium, tail) in BOUNDS.items()}
    assert all(min(size) > 0 for size in sizes.values())
    assert sizes["isic"] == (2, 3, 3)
    assert sizes["kvasir"] == (4, 4, 6)
    assert sizes["nct"] == sizes["pathmnist"] == (2, 3, 4)
    assert sizes["bloodmnist"] == sizes["tissuemnist"] == (3, 2, 3)
    assert sizes["organamnist"] == sizes["organcmnist"] == sizes["organsmnist"] == (3, 3, 5)
    with pytest.raises(ValueError, match="source must be one of"):
        MonicaSplit("table.csv", "ham10000")

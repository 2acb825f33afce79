import numpy as np
import torch

from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.views import SelectedImages, StackedImages, rows_of


def pictures(size: int) -> list[torch.Tensor]:
    return [torch.full((3, 2, 2), i, dtype=torch.uint8) for i in range(size)]


def test_selected_rows():
    images = SelectedImages(pictures(5), np.array([4, 1]))
    assert [len(images), int(images[0][0, 0, 0]), int(images[1][0, 0, 0])] == [2, 4, 1]


def test_stacked_sources():
    images = StackedImages([[torch.zeros(4, 4)] * 3, [torch.ones(4, 4)] * 3])
    assert len(images) == 3
    assert images[1].mean((1, 2)).tolist() == [0, 1]


def test_rows_become_a_base_set_with_all_their_columns():
    whole = ImageDataset(
        pictures(5),
        torch.arange(5),
        ids=list("abcde"),
        groups=list("vwxyz"),
        domains=torch.arange(5) + 10,
        texts=list("ABCDE"),
        layers={"mask": [torch.full((2, 2), i, dtype=torch.uint8) for i in range(5)]},
    )
    part = rows_of(whole, [3, 1])
    sample = part[0]
    assert part.base_size == 2
    assert (sample["index"], sample["id"], sample["group"], sample["text"]) == (0, "d", "y", "D")
    assert (int(sample["target"]), int(sample["domain"])) == (3, 13)
    assert int(sample["image"][0, 0, 0]) == int(sample["mask"][0, 0]) == 3

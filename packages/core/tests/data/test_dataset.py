import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.sampler import Draw

NUMBERS = torch.arange(6)


def pictures(size=6):
    return [torch.full((3, 4, 4), i, dtype=torch.uint8) for i in range(size)]


def columns(**changes):
    given = {
        "images": pictures(),
        "targets": NUMBERS % 3,
        "ids": list("abcdef"),
        "groups": ["p0", "p0", "p1", "p1", "p2", "p2"],
        "domains": NUMBERS % 2,
        "texts": [f"eye {i}" for i in range(6)],
    }
    return ImageDataset(**(given | changes))


class Noise(nn.Module):
    """Adds the same random number to all layers."""

    def forward(self, picture):
        return picture | {"noise": torch.rand(())}


def test_a_sample_has_the_keys_of_its_columns():
    sample = columns()[4]
    assert sample["image"].dtype == torch.uint8
    assert type(sample["image"]) is torch.Tensor
    assert {key: value for key, value in sample.items() if key != "image"} == {
        "target": torch.tensor(1),
        "index": 4,
        "id": "e",
        "group": "p2",
        "domain": torch.tensor(0),
        "text": "eye 4",
    }
    assert set(ImageDataset(pictures(), None, list("abcdef"))[0]) == {"image", "index", "id"}


def test_soft_targets_stay_rows():
    assert torch.equal(columns(targets=torch.eye(6))[2]["target"], torch.eye(6)[2])


def test_selection_keeps_the_base_index_and_every_column():
    chosen = columns().select([5, 0, 5])
    assert len(chosen) == 3
    assert chosen.base_size == 6
    assert chosen.rows.tolist() == [5, 0, 5]
    assert [int(chosen[i]["image"][0, 0, 0]) for i in range(3)] == [5, 0, 5]
    assert [chosen[i]["index"] for i in range(3)] == [5, 0, 5]
    assert [(chosen[i]["id"], chosen[i]["group"], chosen[i]["text"]) for i in (0, 1)] == [
        ("f", "p2", "eye 5"),
        ("a", "p0", "eye 0"),
    ]
    assert chosen.targets.tolist() == [2, 0, 2]
    assert chosen.domains.tolist() == [1, 0, 1]


def test_selections_of_selections_keep_the_base_index():
    twice = columns().select([4, 2, 0]).select([2, 1])
    assert twice.rows.tolist() == [0, 2]
    assert twice.ids == ["a", "c"]


@pytest.mark.parametrize(
    "positions", [[1, 3], (1, 3), np.array([1, 3]), torch.tensor([1, 3]), NUMBERS % 2 * (NUMBERS < 4) == 1], ids=repr
)
def test_positions_may_be_any_sequence_or_a_mask(positions):
    assert columns().select(positions).rows.tolist() == [1, 3]


def test_an_empty_selection_is_an_empty_data_set():
    empty = columns().select([])
    assert len(empty) == 0
    assert empty.targets.shape == (0,)


def test_the_original_does_not_change():
    original = columns()
    original.select([1]).with_transform(Noise())
    assert (len(original), original.index, original.transform) == (6, None, None)


def test_the_transform_depends_on_the_draw_alone():
    noisy = columns(transform=Noise())
    assert noisy[Draw(2, 7)]["noise"] == noisy[Draw(3, 7)]["noise"] != noisy[Draw(2, 8)]["noise"]
    state = torch.get_rng_state()
    noisy[Draw(2, 7)]
    assert torch.equal(torch.get_rng_state(), state)
    assert noisy[2]["noise"] != noisy[2]["noise"]  # a bare position draws from torch's generator


def test_layers_are_transformed_with_the_image():
    ramp = torch.arange(16, dtype=torch.uint8).view(4, 4)
    picture = columns(
        images=[ramp.expand(3, 4, 4)] * 6,
        layers={"mask": [ramp] * 6, "raters": [torch.stack([ramp, ramp + 1])] * 6},
        transform=v2.Compose([v2.RandomHorizontalFlip(), v2.RandomVerticalFlip()]),
    )
    results = set()
    for seed in range(16):
        sample = picture[Draw(0, seed)]
        assert torch.equal(sample["image"][0], sample["mask"])
        assert torch.equal(sample["raters"][1], sample["mask"] + 1)
        results.add(tuple(sample["mask"].flatten().tolist()))
    assert len(results) == 4


def test_a_segmentation_target_is_a_layer():
    sample = columns(targets=None, layers={"target": [torch.ones(4, 4, dtype=torch.uint8)] * 6})[1]
    assert sample["target"].shape == (4, 4)
    assert type(sample["target"]) is torch.Tensor


def test_reading_columns_reads_no_picture():
    class Unreadable:
        def __len__(self):
            return 6

        def __getitem__(self, row):
            raise AssertionError("a picture was read")

    dataset = columns(images=Unreadable()).select([1, 2]).with_transform(Noise())
    assert (len(dataset), dataset.base_size, dataset.rows.tolist()) == (2, 6, [1, 2])

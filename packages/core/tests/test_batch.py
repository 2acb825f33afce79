import pytest
import torch

from medbolt.core.batch import batch_size, collate
from medbolt.core.errors import UserError


def test_tensors_are_stacked_numbers_become_int64_and_names_stay_strings():
    samples = [
        {"image": torch.full((3, 2, 2), float(i)), "index": i, "id": f"s{i}", "group": f"p{i // 2}", "text": f"eye {i}"}
        for i in range(3)
    ]
    batch = collate(samples)
    assert batch["image"].shape == (3, 3, 2, 2)
    assert torch.equal(batch["image"][:, 0, 0, 0], torch.arange(3.0))
    assert batch["index"].dtype == torch.int64
    assert torch.equal(batch["index"], torch.arange(3))
    assert batch["id"] == ["s0", "s1", "s2"]
    assert batch["group"] == ["p0", "p0", "p1"]
    assert batch["text"] == ["eye 0", "eye 1", "eye 2"]


def test_scalar_tensors_keep_their_dtype():
    batch = collate([{"target": torch.tensor(label)} for label in (2, 0)])
    assert torch.equal(batch["target"], torch.tensor([2, 0]))
    assert collate([{"target": torch.tensor([0.5, 0.0])}] * 2)["target"].dtype == torch.float32


def test_a_batch_of_one_keeps_its_first_axis():
    batch = collate([{"image": torch.zeros(3, 2, 2), "index": 7, "id": "a"}])
    assert batch["image"].shape == (1, 3, 2, 2)
    assert batch["index"].tolist() == [7]
    assert batch["id"] == ["a"]


def test_samples_with_other_keys_are_refused():
    with pytest.raises(ValueError, match=r"same keys, got \[\['id', 'index'\], \['index'\]\]"):
        collate([{"index": 0, "id": "a"}, {"index": 1}])


def test_samples_of_other_shapes_are_named():
    samples = [{"image": torch.zeros(3, side, 4), "id": f"s{side}"} for side in (4, 4, 5)]
    with pytest.raises(UserError, match=r"image has shape \(3, 4, 4\) in sample 's4' and \(3, 5, 4\) in 's5'"):
        collate(samples)
    assert collate(samples[:2])["image"].shape == (2, 3, 4, 4)


def test_batch_size_is_read_from_the_index_or_the_images():
    assert batch_size({"index": torch.arange(5), "image": torch.zeros(5, 3, 1, 1)}) == 5
    assert batch_size({"image": torch.zeros(4, 3, 1, 1)}) == 4

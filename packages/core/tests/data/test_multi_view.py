import pytest
import torch
from torchvision import tv_tensors

from medbolt.core import EvaluationTransform, MultiView, StrongTransform, TrainingTransform
from medbolt.core.batch import collate
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.sampler import Draw

PICTURES = torch.randint(0, 256, (4, 3, 40, 40), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_the_image_is_the_first_view_and_masks_follow_it():
    mask = tv_tensors.Mask((PICTURES[0, 0] > 100).to(torch.uint8))
    sample = MultiView([EvaluationTransform(20), StrongTransform(20)])({"image": PICTURES[0], "mask": mask})
    assert sample["views"].shape == (2, 3, 20, 20)
    assert torch.equal(sample["views"][0], sample["image"])
    assert not torch.equal(sample["views"][1], sample["image"])
    assert sample["mask"].shape == (20, 20)


def test_the_same_transform_twice_draws_twice():
    transform = TrainingTransform(20)
    first, second = MultiView([transform, transform])({"image": PICTURES[0]})["views"]
    assert not torch.equal(first, second)


def test_in_a_data_set_the_views_are_a_function_of_the_draw():
    views = MultiView([TrainingTransform(20), StrongTransform(20)])
    dataset = ImageDataset(PICTURES, torch.arange(4) % 2, list("abcd")).with_transform(views)  # pyright: ignore[reportArgumentType]
    batches = [collate([dataset[Draw(i, seed=i)] for i in range(4)]) for _ in range(2)]
    assert batches[0]["views"].shape == (4, 2, 3, 20, 20)
    assert torch.equal(batches[0]["views"], batches[1]["views"])


def test_one_view_is_not_several():
    with pytest.raises(ValueError, match="at least two transforms, got 1"):
        MultiView([EvaluationTransform(20)])

import pytest
import torch
from torchvision import tv_tensors

from medbolt.core import EvaluationTransform, StrongTransform

PICTURE = torch.randint(0, 256, (3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
STILL = {"crop_scale": (1.0, 1.0), "flips": "none", "rotation": 0.0}


def test_without_operations_and_erasing_it_is_evaluation():
    still = StrongTransform(32, operations=0, erased=0.0, **STILL)
    torch.testing.assert_close(still(PICTURE), EvaluationTransform(32)(PICTURE))


def test_the_erased_square_has_the_size_asked_for():
    plain, erased = (StrongTransform(40, operations=0, erased=share, **STILL) for share in (0.0, 0.25))
    changed = (erased(PICTURE) != plain(PICTURE)).all(0)
    rows, columns = changed.any(1).sum(), changed.any(0).sum()
    assert (int(rows), int(columns), int(changed.sum())) == (10, 10, 100)


def test_colours_change_in_most_draws_and_shapes_stay():
    edge = torch.zeros(3, 40, 40, dtype=torch.uint8)
    edge[:, :, 20:] = 160
    transform = StrongTransform(40, operations=2, erased=0.0, **STILL)
    torch.manual_seed(0)
    views = torch.stack([transform(edge) for _ in range(60)])
    assert (views != EvaluationTransform(40)(edge)).flatten(1).any(1).float().mean() > 0.4
    # columns on either side of the edge are still of one value each: sharpening alone reaches one pixel over it
    assert torch.equal(views[..., :18], views[..., :1].expand(-1, -1, -1, 18))
    assert torch.equal(views[..., 22:], views[..., -1:].expand(-1, -1, -1, 18))


def test_masks_are_only_moved():
    mask = tv_tensors.Mask((torch.arange(2400).view(40, 60) % 3 * 100).to(torch.uint8))
    result = StrongTransform(24)({"image": tv_tensors.Image(PICTURE), "mask": mask})
    assert result["mask"].shape == (24, 24)
    assert set(result["mask"].unique().tolist()) <= {0, 100, 200}


@pytest.mark.parametrize("wrong", [{"strength": 1.5}, {"erased": -0.1}])
def test_shares_are_shares(wrong):
    with pytest.raises(ValueError, match=r"must be in \[0, 1\]"):
        StrongTransform(32, **wrong)

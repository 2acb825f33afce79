import pytest
import torch
from torchvision import tv_tensors

from medbolt.core.data.transforms import IMAGENET_MEAN, IMAGENET_STD, EvaluationTransform, TrainingTransform

PICTURE = torch.randint(0, 256, (3, 40, 60), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
STILL = {"flips": "none", "rotation": 0.0, "brightness": 0.0, "contrast": 0.0, "saturation": 0.0}


def test_evaluation_scales_and_normalises_as_written():
    mean, std = torch.tensor(IMAGENET_MEAN).view(3, 1, 1), torch.tensor(IMAGENET_STD).view(3, 1, 1)
    torch.testing.assert_close(EvaluationTransform(None)(PICTURE), (PICTURE / 255 - mean) / std)


def test_evaluation_resizes_to_a_square_and_knows_no_chance():
    transform = EvaluationTransform(32)
    assert transform(PICTURE).shape == (3, 32, 32)
    assert torch.equal(transform(PICTURE), transform(PICTURE))


def test_own_mean_and_deviation_count():
    grey = torch.full((3, 4, 4), 255, dtype=torch.uint8)
    statistics = {"mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25)}
    for transform in (EvaluationTransform(4, **statistics), TrainingTransform(4, **STILL, **statistics)):
        torch.testing.assert_close(transform(grey), torch.full((3, 4, 4), 2.0))


def test_masks_stay_labels():
    mask = tv_tensors.Mask((torch.arange(40 * 60).view(40, 60) % 3 * 100).to(torch.uint8))
    for transform in (EvaluationTransform(24), TrainingTransform(24, rotation=40.0)):
        result = transform({"image": tv_tensors.Image(PICTURE), "mask": mask})
        assert result["mask"].dtype == torch.uint8
        assert set(result["mask"].unique().tolist()) <= {0, 100, 200}
        assert result["mask"].shape == (24, 24)


def test_training_without_chance_is_evaluation():
    still = TrainingTransform(32, crop_scale=(1.0, 1.0), **STILL)
    torch.testing.assert_close(still(PICTURE), EvaluationTransform(32)(PICTURE))
    torch.testing.assert_close(TrainingTransform(None, **STILL)(PICTURE), EvaluationTransform(None)(PICTURE))


@pytest.mark.parametrize(("flips", "results"), [("none", 1), ("horizontal", 2), ("vertical", 2), ("both", 4)])
def test_flips(flips, results):
    transform = TrainingTransform(None, **(STILL | {"flips": flips}))
    seen = {tuple(transform(PICTURE).flatten().tolist()) for _ in range(40)}
    expected = EvaluationTransform(None)
    mirrored = {"horizontal": PICTURE.flip(2), "vertical": PICTURE.flip(1), "both": PICTURE.flip(1, 2)}
    assert len(seen) == results
    if flips in mirrored:
        assert tuple(expected(mirrored[flips]).flatten().tolist()) in seen


def test_an_unknown_flip_is_refused():
    with pytest.raises(ValueError, match="flips must be 'none', 'horizontal', 'vertical' or 'both', got 'left'"):
        TrainingTransform(flips="left")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("option", ["brightness", "contrast", "saturation", "hue", "rotation"])
def test_each_option_has_its_effect(option):
    torch.manual_seed(0)
    changed = TrainingTransform(None, **(STILL | {option: 0.4}))
    assert not torch.equal(changed(PICTURE), EvaluationTransform(None)(PICTURE))


def test_crops_keep_at_least_the_asked_share():
    # a picture whose value is its column: what remains of the range tells how much of the width was kept
    ramp = torch.arange(100, dtype=torch.uint8).expand(3, 100, 100).contiguous()
    transform = TrainingTransform(50, crop_scale=(0.81, 0.81), mean=(0, 0, 0), std=(1, 1, 1), **STILL)
    kept = [(p.max() - p.min()) * 255 for p in (transform(ramp) for _ in range(20))]
    assert all(80 <= width <= 97 for width in kept)  # sides of 0.9 with an aspect of at most 1.1


def test_the_default_hue_is_a_diagnostic_sign_and_stays():
    red = torch.zeros(3, 8, 8, dtype=torch.uint8)
    red[0] = 200
    result = TrainingTransform(8, mean=(0, 0, 0), std=(1, 1, 1), rotation=0.0)(red)
    assert result[0].min() > 3 * result[1].max()
    torch.testing.assert_close(result[1], result[2], atol=0.02, rtol=0)

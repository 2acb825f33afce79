import numpy as np
import pytest
import torch
from torchvision import tv_tensors

from medbolt.core.data.crop import Circle, CropFieldOfView, crop_square, field_of_view
from medbolt.core.data.decode import decode_image


def photograph(height: int, width: int, x: float, y: float, radius: float, dim: float = 1.0) -> torch.Tensor:
    """A noisy orange disc, darker to one side, on nearly black."""
    rng = np.random.default_rng(0)
    rows, columns = np.indices((height, width)) + 0.5
    inside = np.hypot(columns - x, rows - y) < radius
    shade = np.clip(1 - (1 - dim) * (columns - x + radius) / (2 * radius), 0, 1)
    colour = np.array([200, 90, 40])[:, None, None] * shade * inside
    return torch.from_numpy(np.clip(colour + rng.normal(3, 2, (3, height, width)), 0, 255).astype(np.uint8))


CASES = {
    "whole": (300, 400, 200.0, 150.0, 130.0, 1.0),
    "off centre": (300, 400, 150.0, 160.0, 120.0, 1.0),
    "cut at top and bottom": (300, 400, 205.0, 150.0, 180.0, 1.0),
    "cut at one side": (300, 300, 160.0, 80.0, 120.0, 1.0),
    "only the corners dark": (300, 400, 200.0, 150.0, 220.0, 1.0),
    "dark to one side": (300, 400, 200.0, 150.0, 130.0, 0.3),
    "large": (1200, 1600, 790.0, 610.0, 560.0, 0.7),
    "small": (32, 32, 16.0, 15.0, 14.0, 1.0),
}


@pytest.mark.parametrize("case", CASES)
def test_the_circle_is_found(case):
    height, width, x, y, radius, dim = CASES[case]
    found = field_of_view(photograph(height, width, x, y, radius, dim))
    assert found == pytest.approx((x, y, radius), abs=max(1.0, 0.015 * radius))


def test_writing_and_specks_beside_the_circle_do_not_matter():
    image = photograph(300, 400, 200, 150, 120)
    image[:, 5:20, 5:60] = 255
    image[:, 280:283, 390:393] = 255
    assert field_of_view(image) == pytest.approx((200, 150, 120), abs=2)


def test_a_notch_in_the_circle_does_not_matter():
    image = photograph(300, 400, 200, 150, 120)
    image[:, 20:50, 250:300] = 200
    image[:, 140:160, 310:330] = 200  # touches the circle on its right
    assert field_of_view(image) == pytest.approx((200, 150, 120), abs=3)


@pytest.mark.parametrize("value", [0, 3, 200])
def test_an_image_without_a_circle_is_kept_whole(value):
    assert field_of_view(torch.full((3, 60, 80), value, dtype=torch.uint8)) == Circle(40, 30, 40)


def test_a_bright_rectangle_is_framed():
    image = torch.zeros(3, 200, 200, dtype=torch.uint8)
    image[:, 50:150, 20:180] = 150
    assert field_of_view(image) == pytest.approx((100, 100, 80), abs=1.5)


def test_squares_reach_beyond_the_frame():
    image = tv_tensors.Image(torch.full((3, 60, 80), 9, dtype=torch.uint8))
    square = crop_square(image, Circle(40, 30, 40))
    assert square.shape == (3, 80, 80)
    assert (square[:, 10:70] == 9).all()
    assert square[:, :10].max() == square[:, 70:].max() == 0
    assert crop_square(image, Circle(40, 30, 10)).shape == (3, 20, 20)


def test_masks_share_the_geometry():
    image = photograph(120, 160, 80, 60, 50)
    inside = (image.amax(0) > 50).to(torch.uint8)
    sample = CropFieldOfView()({"image": tv_tensors.Image(image), "mask": tv_tensors.Mask(inside), "id": "a"})
    assert sample["image"].shape[1:] == sample["mask"].shape
    assert ((sample["image"].amax(0) > 50) == sample["mask"]).all()
    assert sample["mask"].sum() == inside.sum()
    assert sample["id"] == "a"


@pytest.mark.data
def test_real_photographs(shared_data):
    found = [field_of_view(decode_image(path)) for path in sorted((shared_data / "chase_db1/images").glob("*.jpg"))[:6]]
    assert all(circle == pytest.approx((493, 480, 461), abs=4) for circle in found)

import torch

from medbolt.longtail.experts.random_view import random_view


def views(image, number=200):
    torch.manual_seed(0)
    return torch.stack([random_view(image) for _ in range(number)])


def test_a_view_is_the_image_moved_a_little():
    rows, columns = torch.meshgrid(torch.linspace(-1, 1, 32), torch.linspace(-1, 1, 32), indexing="ij")
    found = views(torch.stack([rows, columns]))
    centre = found[:, :, 12:20, 12:20]
    slope = (centre[..., -1] - centre[..., 0]).mean(2) / (7 * 2 / 31)  # along columns, of both channels
    along = slope[:, 1]
    assert 0.4 < float((along > 0).float().mean()) < 0.6  # mirrored in half of the cases
    assert along.abs().min() > 0.8 * 0.96 - 0.02  # the scale times the cosine of the angle
    assert along.abs().max() < 1.02
    assert 0.15 < slope[:, 0].abs().max() < 0.27  # the sine of 15 degrees
    moved = centre.mean((2, 3))
    assert 0.07 < moved.abs().max() < 0.15
    assert moved.mean(0).abs().max() < 0.02


def test_colours_and_constants_stay():
    image = torch.tensor([0.3, -2.0, 1.0])[:, None, None].expand(3, 9, 7)
    found = views(image, 20)
    torch.testing.assert_close(found, image.expand(20, -1, -1, -1))


def test_half_precision_and_single_pixels():
    assert random_view(torch.zeros(1, 1, 1)).shape == (1, 1, 1)
    found = random_view(torch.ones(3, 8, 8, dtype=torch.float64))
    assert found.dtype == torch.float64

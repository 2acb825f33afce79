import numpy as np
import pytest
from scipy import ndimage

from medbolt.core.synthetic.lesions import draw_blobs, lesion_masks
from medbolt.core.synthetic.placement import Blobs
from medbolt.core.synthetic.view import View


def view(size):
    return View(size, 1.0, np.eye(2) * size / 2, np.full(2, size / 2))


def discs(centres, radius):
    return Blobs(np.array(centres), np.full(len(centres), radius), np.zeros((len(centres), 2), complex), 0.0)


def test_equals_a_loop_over_the_pixels():
    rng = np.random.default_rng(0)
    waves = 0.2 * (rng.random((6, 2)) + 1j * rng.random((6, 2)))
    blobs = Blobs(rng.uniform(-1.05, 1.05, (6, 2)), rng.uniform(0.05, 0.2, 6), waves, 0.5)
    size = 40
    expected = np.zeros((size, size))
    for (x, y), radius, (two, three) in zip(
        view(size).pixels(blobs.centres), blobs.radii * size / 2, waves, strict=True
    ):
        for row in range(size):
            for column in range(size):
                z = complex(column + 0.5 - x, row + 0.5 - y)
                turn = z / abs(z)
                rim = radius * (1 + (two * turn**2 + three * turn**3).real)
                expected[row, column] = max(expected[row, column], min(1, 0.5 + (rim - abs(z)) / (1 + 0.5 * radius)))
    np.testing.assert_allclose(draw_blobs(blobs, view(size)), expected, atol=1e-6)


@pytest.mark.parametrize("size", [64, 512])
def test_area_of_a_disc(size):
    radius = 0.2
    area = draw_blobs(discs([(0.03, -0.02)], radius), view(size)).sum() * (2 / size) ** 2
    assert area == pytest.approx(np.pi * radius**2, rel=0.01)


def test_a_lesion_smaller_than_a_pixel_is_still_in_the_mask():
    centres = np.random.default_rng(0).uniform(-0.9, 0.9, (200, 1, 2))
    assert all((draw_blobs(discs(centre, 1e-4), view(32)) >= 0.5).any() for centre in centres)


def test_no_lesions_no_coverage():
    assert not draw_blobs(discs(np.empty((0, 2)), 0.1), view(32)).any()


def test_masks_keep_what_covers_half_a_pixel():
    coverage = np.array([0.49, 0.5, 1.0], np.float32).reshape(1, 1, 3).repeat(4, 0)
    assert lesion_masks(coverage)[1].tolist() == [[0, 1, 1]]
    assert lesion_masks(coverage).dtype == np.uint8


def test_separate_discs_stay_separate():
    canvas = draw_blobs(discs([(-0.2, 0), (0.2, 0), (0, 0.3)], 0.1), view(128))
    assert ndimage.label(canvas >= 0.5)[1] == 3

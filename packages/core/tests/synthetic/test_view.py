import numpy as np

from medbolt.core.synthetic.anatomy import draw_anatomy
from medbolt.core.synthetic.view import view_of


def test_pixels_and_retina_are_inverse():
    view = view_of(draw_anatomy(0, 1), 100, 0.9)
    points = np.random.default_rng(0).uniform(-1, 1, (5, 3, 2))
    np.testing.assert_allclose(view.retina(view.pixels(points)), points, atol=1e-12)


def test_right_and_left_are_mirrored():
    for index, right in ((0, True), (1, False)):
        anatomy = draw_anatomy(0, index)
        view = view_of(anatomy, 128, 0.96)
        disc, fovea = view.pixels(anatomy.disc), view.pixels(anatomy.fovea)
        assert (disc[0] > fovea[0]) == right


def test_size_only_scales():
    anatomy = draw_anatomy(0, 4)
    small, large = view_of(anatomy, 64, 0.8), view_of(anatomy, 256, 0.8)
    points = np.random.default_rng(0).uniform(-1, 1, (9, 2))
    np.testing.assert_allclose(large.pixels(points), 4 * small.pixels(points))
    assert large.scale == 4 * small.scale


def test_grid_points_are_pixel_centres():
    view = view_of(draw_anatomy(0, 0), 32, 1.0)
    grid = view.pixels(view.retina_grid(slice(2, 4), slice(5, 8)))
    assert grid.shape == (2, 3, 2)
    np.testing.assert_allclose(grid[1, 2], [7.5, 3.5])

import numpy as np
import pytest

from medbolt.core.synthetic.anatomy import draw_anatomy
from medbolt.core.synthetic.counter import Stream, generator
from medbolt.core.synthetic.vessels import Lines, draw_vessels, grow, tangle
from medbolt.core.synthetic.view import View


def view(size):
    return View(size, 1.0, np.eye(2) * size / 2, np.full(2, size / 2))


@pytest.mark.parametrize("size", [64, 128, 512])
@pytest.mark.parametrize("angle", [0.0, 0.4, 1.57])
def test_a_line_covers_length_times_width(size, angle):
    t = np.linspace(-0.6, 0.6, 9)
    line = Lines(np.stack([t * np.cos(angle), t * np.sin(angle)], -1)[None], np.full((1, 9), 0.06), np.ones(1))
    area = draw_vessels([line], view(size)).sum() * (2 / size) ** 2
    assert area == pytest.approx(1.2 * 0.06, rel=0.06)


def test_the_fovea_has_no_vessels():
    for index in range(20):
        anatomy = draw_anatomy(0, index)
        for lines in grow(anatomy, generator(0, Stream.VESSELS, index)):
            assert np.hypot(*(lines.points - anatomy.fovea).transpose(2, 0, 1)).min() >= 0.11 - 1e-9


def test_arcades_leave_the_disc_and_enclose_the_macula():
    for index in range(20):
        anatomy = draw_anatomy(0, index)
        trunks = grow(anatomy, generator(0, Stream.VESSELS, index))[2].points
        assert np.hypot(*(trunks[:, 0] - anatomy.disc).T).max() < abs(anatomy.disc_outline[0])
        for number, sign in [(0, -1), (1, 1), (6, -1), (7, 1)]:  # superior and inferior, of arteries and veins
            arcade = trunks[number]
            height = sign * np.interp(anatomy.fovea[0], arcade[::-1, 0], arcade[::-1, 1])
            assert 0.3 < height < 0.75


def test_veins_are_wider_and_darker_than_arteries():
    trunks = grow(draw_anatomy(0, 0), generator(0, Stream.VESSELS, 0))[2]
    assert (trunks.widths[6:] > trunks.widths[:6]).all()
    assert trunks.tints[6:].min() > trunks.tints[:6].max()


def test_tangles_stay_near_their_centres():
    centres = np.array([(0.5, 0.0), (-0.3, 0.4)])
    lines = tangle(centres, np.random.default_rng(0)).points.reshape(2, -1, 2)
    assert np.hypot(*(lines - centres[:, None]).transpose(2, 0, 1)).max() < 0.28
    assert tangle(np.empty((0, 2)), np.random.default_rng(0)).points.shape == (0, 14, 2)

import numpy as np
import pytest
from scipy import ndimage

from medbolt.core.synthetic.anatomy import draw_anatomy
from medbolt.core.synthetic.counter import Stream, generator
from medbolt.core.synthetic.outlines import disc_grid, draw_outlines, rater_outlines, rater_style
from medbolt.core.synthetic.view import view_of

RATERS, EYES, SIZE = 6, 60, 128


@pytest.fixture(scope="module")
def drawn():
    """(EYES, 1 + RATERS, H, W): the truth, then the raters."""
    masks = []
    for index in range(EYES):
        anatomy = draw_anatomy(0, index)
        grid = disc_grid(anatomy, view_of(anatomy, SIZE, 0.96))
        discs, cups = rater_outlines(anatomy, RATERS, generator(0, Stream.RATERS, index))
        discs = np.concatenate([anatomy.disc_outline[None], discs])
        cups = np.concatenate([anatomy.cup_outline[None], cups])
        masks.append(draw_outlines(discs, cups, grid, SIZE))
    return np.stack(masks)


def radius(masks):
    return np.sqrt(masks.sum((-2, -1)) / np.pi)


def test_every_rater_draws_a_cup(drawn):
    assert set(np.unique(drawn)) == {0, 1, 2}
    assert (drawn == 2).any((-2, -1)).all()


def test_a_rim_surrounds_every_cup():
    for index in range(20):
        anatomy = draw_anatomy(0, index)
        grid = disc_grid(anatomy, view_of(anatomy, 512, 0.96))
        for mask in draw_outlines(*rater_outlines(anatomy, RATERS, generator(0, Stream.RATERS, index)), grid, 512):
            assert not (ndimage.binary_dilation(mask == 2) & (mask == 0)).any()


def test_styles_are_systematic(drawn):
    disc, cup = radius(drawn >= 1), radius(drawn == 2)
    for masks, bias in ((disc, "disc_bias"), (cup, "cup_bias")):
        measured = (masks[:, 1:] / masks[:, :1] - 1).mean(0)
        styles = np.array([getattr(rater_style(r), bias) for r in range(RATERS)])
        np.testing.assert_array_equal(np.argsort(measured), np.argsort(styles))
        np.testing.assert_allclose(measured, styles, atol=0.05)


def test_raters_disagree_but_not_wildly(drawn):
    disc = drawn[:, 1:] >= 1
    for a in range(RATERS):
        for b in range(a):
            both = (disc[:, a] & disc[:, b]).sum((-2, -1))
            dice = 2 * both / (disc[:, a].sum((-2, -1)) + disc[:, b].sum((-2, -1)))
            assert 0.8 < dice.mean() < 0.995


def test_a_rater_is_the_same_however_many_there_are():
    anatomy = draw_anatomy(0, 3)
    few, many = (rater_outlines(anatomy, r, generator(0, Stream.RATERS, 3)) for r in (2, 5))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:2])


def test_styles_cover_their_range():
    styles = [rater_style(r) for r in range(16)]
    assert min(s.cup_bias for s in styles) < -0.2
    assert max(s.cup_bias for s in styles) > 0.2
    assert all(0.005 <= s.roughness <= 0.04 for s in styles)

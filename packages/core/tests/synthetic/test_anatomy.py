import numpy as np

from medbolt.core.synthetic.anatomy import draw_anatomy


def style(anatomy):
    radius, cup = abs(anatomy.disc_outline[0]), abs(anatomy.cup_outline[0])
    return [radius, cup / radius, anatomy.tortuosity, anatomy.arcade, anatomy.calibre, anatomy.shade]


def test_the_eyes_of_a_patient_look_alike():
    right, left = (np.array([style(draw_anatomy(0, 2 * p + eye)) for p in range(200)]) for eye in (0, 1))
    for column in range(right.shape[1]):
        assert np.corrcoef(right[:, column], left[:, column])[0, 1] > 0.7
        assert abs(np.corrcoef(right[:, column], np.roll(left[:, column], 1))[0, 1]) < 0.3
    assert not np.array_equal(right, left)


def test_sides_alternate():
    assert [draw_anatomy(0, i).right for i in range(4)] == [True, False, True, False]


def test_cup_is_smaller_than_disc_and_both_are_in_range():
    for index in range(100):
        anatomy = draw_anatomy(1, index)
        radius, cup = abs(anatomy.disc_outline[0]), abs(anatomy.cup_outline[0])
        assert 0.155 <= radius <= 0.185
        assert 0.25 <= cup / radius <= 0.7

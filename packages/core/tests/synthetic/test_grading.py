import numpy as np
import pytest

from medbolt.core.synthetic.grading import GRADES, HIERARCHY, LESIONS, SEVERE, LesionCounts, draw_counts, grade


def counts(microaneurysms=0, haemorrhages=(0, 0, 0, 0), hard=0, soft=0, new_vessels=0, preretinal=0):
    columns = ([microaneurysms], [haemorrhages], [hard], [soft], [new_vessels], [preretinal])
    return LesionCounts(*(np.array(column) for column in columns))


@pytest.mark.parametrize(
    ("lesions", "expected"),
    [
        ({}, 0),
        ({"microaneurysms": 1}, 1),
        ({"microaneurysms": 99}, 1),
        ({"microaneurysms": 5, "haemorrhages": (0, 1, 0, 0)}, 2),
        ({"microaneurysms": 5, "hard": 1}, 2),
        ({"soft": 1}, 2),
        ({"haemorrhages": (9, 9, 9, SEVERE - 1)}, 2),
        ({"haemorrhages": (SEVERE,) * 4}, 3),
        ({"haemorrhages": (9,) * 4, "hard": 9, "soft": 9, "microaneurysms": 9}, 3),
        ({"new_vessels": 1}, 4),
        ({"preretinal": 1}, 4),
        ({"haemorrhages": (9,) * 4, "new_vessels": 1}, 4),
    ],
)
def test_truth_table(lesions, expected):
    assert grade(counts(**lesions)).tolist() == [expected]


def test_drawn_counts_make_exactly_the_grade():
    grades = np.tile(np.arange(5), 4000)
    drawn = draw_counts(0, grades)
    np.testing.assert_array_equal(grade(drawn), grades)
    assert all(column.min() >= 0 for column in drawn)


def test_every_kind_that_a_grade_allows_occurs_and_also_lacks():
    grades = np.repeat(np.arange(5), 2000)
    present = draw_counts(1, grades).totals().reshape(5, 2000, 6) > 0
    share = present.mean(1)
    assert (share[0] == 0).all()
    assert share[1].tolist() == [1, 0, 0, 0, 0, 0]
    assert (share[2:, 2:4] > 0.2).all()
    assert (share[2:, 2:4] < 0.9).all()
    assert (share[:4, 4:] == 0).all()
    assert (share[4, 4:] > 0.4).all()
    assert (share[4, 4:] < 1).all()


def test_counts_of_a_sample_depend_on_its_own_grade_alone():
    few, many = draw_counts(5, np.array([2, 3, 4])), draw_counts(5, np.array([2, 3, 4, 0, 1, 2]))
    for a, b in zip(few, many, strict=True):
        np.testing.assert_array_equal(a, b[:3])


def test_totals_and_take():
    drawn = draw_counts(0, np.array([4, 3, 2]))
    totals = drawn.totals()
    assert totals.shape == (3, len(LESIONS))
    np.testing.assert_array_equal(totals[1, 1], drawn.haemorrhages[1].sum())
    np.testing.assert_array_equal(drawn.take(1).totals()[0], totals[1])


def test_hierarchy_is_a_tree_of_equal_depth():
    assert tuple(HIERARCHY) == GRADES
    assert {len(path) for path in HIERARCHY.values()} == {2}
    parents = {}
    for middle, top in HIERARCHY.values():
        assert parents.setdefault(middle, top) == top

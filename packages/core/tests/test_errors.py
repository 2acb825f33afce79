import pytest

from medbolt.core.errors import UserError, did_you_mean, listed


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ([], ""),
        (["a"], "'a'"),
        (["a", "b", "c"], "'a', 'b', 'c'"),
        (["a", "b", "c", "d", "e"], "'a', 'b', 'c' and 2 more"),
        ((n for n in (1, 2)), "'1', '2'"),
        ({"x": 1, "y": 2}, "'x', 'y'"),
    ],
)
def test_names_are_listed(names, expected):
    assert listed(names, most=3) == expected


def test_eight_names_are_listed_by_default():
    assert listed(range(9)).endswith("'7' and 1 more")


@pytest.mark.parametrize(
    ("name", "candidates", "expected"),
    [
        ("lable", ["label", "image"], " (did you mean 'label'?)"),
        ("grade", ["grades", "grade_"], " (did you mean 'grades'?)"),
        ("xyz", ["label", "image"], ""),
        ("label", [], ""),
        ("labl", iter(["label"]), " (did you mean 'label'?)"),
    ],
)
def test_the_nearest_candidate_is_offered(name, candidates, expected):
    assert did_you_mean(name, candidates) == expected

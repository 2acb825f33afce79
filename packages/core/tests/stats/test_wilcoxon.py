import itertools

import numpy as np
import pytest

from medbolt.core.stats import wilcoxon


@pytest.mark.parametrize(
    ("datasets", "smallest", "verdict"),
    [(5, 0.0625, "can never reach 0.05"), (6, 0.03125, "can reach 0.05"), (8, 0.0078125, "can reach 0.05")],
)
def test_winning_everywhere_reaches_the_smallest_p_and_the_message_says_it(datasets, smallest, verdict):
    test = wilcoxon(np.linspace(0.7, 0.8, datasets), np.linspace(0.6, 0.65, datasets))
    assert test.p_value == test.smallest_p == smallest
    assert f"with {datasets} data sets the smallest two-sided p is {smallest:.4g}, so the test {verdict}" in str(test)


def test_p_is_exact():
    difference = np.array([3.0, -1.0, 4.0, -2.0, 5.0, 6.0, 7.0])
    sums = [
        sum(rank for rank, sign in zip(range(1, 8), signs, strict=True) if sign < 0)
        for signs in itertools.product((-1, 1), repeat=7)
    ]
    observed = 1 + 2
    expected = 2 * np.mean(np.array(sums) <= observed)
    test = wilcoxon(difference, np.zeros(7))
    assert test.statistic == observed
    assert test.p_value == pytest.approx(expected)


def test_equal_scores_carry_no_information():
    assert wilcoxon([1, 2, 3, 4, 5, 6, 7], [0, 1, 2, 4, 5, 6, 7]).datasets == 3
    same = wilcoxon([1, 2], [1, 2])
    assert (same.datasets, same.p_value, same.smallest_p) == (0, 1, 1)


@pytest.mark.parametrize(("first", "second"), [([1, 2], [1]), ([1, np.nan], [1, 2]), ([[1, 2]], [[1, 2]])])
def test_bad_scores_are_refused(first, second):
    with pytest.raises(ValueError, match="finite scores"):
        wilcoxon(first, second)

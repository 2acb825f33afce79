import numpy as np
import pytest
import scipy.stats

from medbolt.core.stats import friedman, nemenyi

# q_alpha / sqrt 2 of the studentized range for k = 2 ... 10 methods
Q05 = [1.960, 2.344, 2.569, 2.728, 2.850, 2.948, 3.031, 3.102, 3.164]
Q10 = [1.645, 2.052, 2.291, 2.460, 2.589, 2.693, 2.780, 2.855, 2.920]
SCORES = np.random.default_rng(0).random((8, 4)) + np.array([0.0, 0.1, 0.3, 0.5])


def test_statistics_equal_their_formulas():
    test = friedman(SCORES)
    n, k = SCORES.shape
    ranks = np.array([[1 + sum(other > score for other in row) for score in row] for row in SCORES]).mean(0)
    chi2 = 12 * n / (k * (k + 1)) * ((ranks**2).sum() - k * (k + 1) ** 2 / 4)
    f = (n - 1) * chi2 / (n * (k - 1) - chi2)
    np.testing.assert_allclose(test.mean_ranks, ranks)
    assert test.chi2 == pytest.approx(chi2)
    assert test.chi2_p_value == pytest.approx(scipy.stats.chi2.sf(chi2, k - 1))
    assert test.f == pytest.approx(f)
    assert test.p_value == pytest.approx(scipy.stats.f.sf(f, k - 1, (k - 1) * (n - 1)))


def test_lower_is_better_turns_the_ranks():
    np.testing.assert_allclose(friedman(SCORES, higher_is_better=False).mean_ranks, 5 - friedman(SCORES).mean_ranks)


def test_full_agreement_and_no_difference_are_the_limits():
    agreed = friedman([[3, 2, 1]] * 4)
    assert (agreed.f, agreed.p_value) == (np.inf, 0)
    tied = friedman(np.ones((4, 3)))
    assert (tied.chi2, tied.p_value) == (0, 1)


@pytest.mark.parametrize(("alpha", "table"), [(0.05, Q05), (0.10, Q10)])
def test_critical_differences_equal_the_published_table(alpha, table):
    for k, q in enumerate(table, start=2):
        scores = np.random.default_rng(k).random((6, k))
        expected = q * np.sqrt(k * (k + 1) / (6 * 6))
        assert nemenyi(scores, alpha).critical_difference == pytest.approx(expected, abs=0.001 * expected)


def test_a_pair_at_the_critical_difference_has_p_equal_to_alpha():
    test = nemenyi(SCORES)
    gap = np.abs(test.mean_ranks[:, None] - test.mean_ranks)
    np.testing.assert_array_equal(test.p_values < 0.05, gap > test.critical_difference)
    k, n = 4, 8
    q = test.critical_difference / np.sqrt(k * (k + 1) / (6 * n)) * np.sqrt(2)
    assert scipy.stats.studentized_range.sf(q, k, np.inf) == pytest.approx(0.05, abs=1e-6)
    np.testing.assert_array_equal(np.diag(test.p_values), 1)
    np.testing.assert_allclose(test.p_values, test.p_values.T)


@pytest.mark.parametrize("scores", [np.ones((1, 3)), np.ones((4, 2)), np.ones(4), np.full((4, 3), np.nan)])
def test_bad_scores_are_refused(scores):
    with pytest.raises(ValueError, match="scores must"):
        friedman(scores)


def test_a_level_out_of_range_is_refused():
    with pytest.raises(ValueError, match=r"alpha must be in \(0, 1\)"):
        nemenyi(SCORES, alpha=0)

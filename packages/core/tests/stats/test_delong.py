import numpy as np
import pytest

from medbolt.core.errors import UserError
from medbolt.core.stats import auroc, delong_covariance, delong_interval, delong_test

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 400)
A, B = Y + RNG.normal(0, 1.2, 400), Y + RNG.normal(0, 1.6, 400)


def test_equals_the_published_oracle():
    areas, covariance = delong_covariance(Y, A, B)
    np.testing.assert_allclose(areas, [0.75188958, 0.63737708], atol=5e-9)
    np.testing.assert_allclose(np.sqrt(np.diag(covariance)), [0.02433853, 0.02758174], atol=5e-9)
    test = delong_test(Y, A, B)
    assert test.z == pytest.approx(3.271255490, abs=5e-9)
    assert test.p_value == pytest.approx(0.00107071132, abs=5e-12)
    assert (test.first, test.second) == pytest.approx((areas[0], areas[1]))


def test_equals_the_definition_by_pairs():
    first, second = np.round(A, 1), np.round(B, 1)  # rounded: many ties
    psi = [
        (s[Y == 1][:, None] > s[Y == 0]) + 0.5 * (s[Y == 1][:, None] == s[Y == 0]).astype(float)
        for s in (first, second)
    ]
    expected = np.cov([p.mean(1) for p in psi]) / (Y == 1).sum() + np.cov([p.mean(0) for p in psi]) / (Y == 0).sum()
    areas, covariance = delong_covariance(Y, first, second)
    np.testing.assert_allclose(covariance, expected, atol=1e-14)
    np.testing.assert_allclose(areas, [auroc(Y, first), auroc(Y, second)], atol=1e-14)


def test_the_interval_is_wald_s_on_the_logit_scale():
    interval = delong_interval(Y, A)
    area, error = 0.75188958, 0.02433853
    logit, half = np.log(area / (1 - area)), 1.959964 * error / (area * (1 - area))
    assert interval.low == pytest.approx(1 / (1 + np.exp(-(logit - half))), abs=1e-6)
    assert interval.high == pytest.approx(1 / (1 + np.exp(-(logit + half))), abs=1e-6)
    untransformed = (0.70419, 0.79959)
    assert (interval.low, interval.high) == pytest.approx(untransformed, abs=0.005)


def test_the_interval_stays_inside_the_unit_interval():
    interval = delong_interval([0] * 10 + [1] * 10, [*range(10), 8.5, *range(11, 20)])
    assert interval.estimate == 0.99  # Wald untransformed: 0.962 to 1.018
    assert 0.8 < interval.low < interval.estimate < interval.high < 1


def test_the_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    truth = 0.76024993890652  # Phi(1 / sqrt 2)
    target = np.repeat([0, 1], 60)
    intervals = [delong_interval(target, target + rng.normal(size=120)) for _ in range(400)]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.92 < covered < 0.98


def test_perfect_separation_has_no_width():
    interval = delong_interval([0, 0, 1, 1], [1, 2, 3, 4])
    assert (interval.low, interval.estimate, interval.high) == (1, 1, 1)


def test_models_that_rank_alike_do_not_differ():
    test = delong_test(Y, A, np.exp(A))
    assert (test.z, test.p_value) == (0, 1)


def test_repeated_groups_are_refused():
    groups = np.arange(400).astype(str)
    delong_interval(Y, A, groups=groups)
    groups[7] = "3"
    for function, scores in ((delong_interval, (A,)), (delong_test, (A, B))):
        with pytest.raises(UserError, match="group '3' has 2; use bootstrap"):
            function(Y, *scores, groups=groups)


def test_a_class_of_one_is_refused():
    with pytest.raises(UserError, match="got 1 and 3"):
        delong_interval([0, 0, 0, 1], [1, 2, 3, 4])


@pytest.mark.parametrize(
    ("target", "score", "sentence"),
    [
        ([0, 0, 1, 1], [0.1, float("nan"), 0.3, 0.4], "score of sample 1 is NaN"),
        ([0, 1, 2, 1, 0], [0.1, 0.2, 0.3, 0.4, 0.5], "nothing but 0 and 1"),
        ([0, 0, 1, 1], [0.1, 0.2, 0.3], r"score must have the shape of target \(4,\), got \(3,\)"),
    ],
)
def test_what_is_no_binary_comparison_is_refused(target, score, sentence):
    good = np.linspace(0, 1, len(target))
    with pytest.raises(ValueError, match=sentence):
        delong_test(target, good, score)
    with pytest.raises(ValueError, match=sentence):
        delong_interval(target, score)

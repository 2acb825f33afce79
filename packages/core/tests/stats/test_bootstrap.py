import numpy as np
import pytest
import scipy.stats

from medbolt.core.errors import UserError
from medbolt.core.stats import accuracy, auroc, balanced_accuracy, bootstrap_difference, bootstrap_interval

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 400)
A, B = Y + RNG.normal(0, 1.2, 400), Y + RNG.normal(0, 1.6, 400)


def spread(sample, values, weight=None):
    """Standard deviation: skewed and biased, so that BCa differs from the percentile interval."""
    weight = np.ones(len(values)) if weight is None else weight
    mean = weight @ values / weight.sum(-1)
    return np.sqrt(weight @ values**2 / weight.sum(-1) - mean**2)


def test_equals_the_published_interval():
    interval = bootstrap_interval(auroc, Y, A, replicates=20000)
    assert interval.estimate == pytest.approx(0.75188958, abs=5e-9)
    assert (interval.low, interval.high) == pytest.approx((0.704, 0.800), abs=0.003)
    assert interval.discarded == 0


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_equals_scipy_on_the_same_resamples(method):
    values = RNG.exponential(size=40)
    theirs = scipy.stats.bootstrap(
        (values,), np.std, method=method, n_resamples=1000, rng=np.random.default_rng(3), confidence_level=0.9
    ).confidence_interval
    ours = bootstrap_interval(spread, np.zeros(40), values, method=method, replicates=1000, level=0.9, seed=3)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-9)


def test_stratified_bca_equals_scipy_s_bca_of_two_samples():
    first, second = RNG.exponential(size=30), RNG.exponential(size=20)
    theirs = scipy.stats.bootstrap(
        (first, second), lambda x, y: x.mean() - y.mean(), method="BCa", n_resamples=20000, rng=1, vectorized=False
    ).confidence_interval

    def difference(target, values, weight=None):
        weight = np.ones(50) if weight is None else weight
        one, two = weight[..., target == 0], weight[..., target == 1]
        return one @ values[target == 0] / one.sum(-1) - two @ values[target == 1] / two.sum(-1)

    target = np.repeat([0, 1], [30, 20])
    values = np.concatenate([first, second])
    ours = bootstrap_interval(difference, target, values, stratified=True, method="bca", replicates=20000)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.03)


def test_images_of_one_patient_do_not_narrow_the_interval():
    patients = np.repeat(np.arange(100), 4)
    target, score = Y[:100].repeat(4), A[:100].repeat(4)
    once = bootstrap_interval(auroc, Y[:100], A[:100])
    careless = bootstrap_interval(auroc, target, score)
    careful = bootstrap_interval(auroc, target, score, groups=patients)
    assert (careful.low, careful.high) == pytest.approx((once.low, once.high))
    assert careful.high - careful.low > 1.8 * (careless.high - careless.low)


@pytest.mark.parametrize("method", ["percentile", "bca"])
def test_covers_the_truth_as_often_as_it_says(method):
    rng = np.random.default_rng(1)
    target = np.repeat([0, 1], 50)
    truth = 0.76024993890652  # Phi(1 / sqrt 2)
    intervals = [
        bootstrap_interval(auroc, target, target + rng.normal(size=100), replicates=400, method=method)
        for _ in range(300)
    ]
    covered = np.mean([interval.low <= truth <= interval.high for interval in intervals])
    assert 0.91 < covered < 0.98


def test_a_rare_class_needs_strata():
    target = np.array([0] * 97 + [1] * 3)
    prediction = target.copy()
    with pytest.raises(UserError, match=r"of 2000 bootstrap replicates lack a class.*stratified=True"):
        bootstrap_interval(balanced_accuracy, target[:-1], prediction[:-1])
    assert bootstrap_interval(balanced_accuracy, target, prediction, stratified=True).discarded == 0


def test_replicates_that_lack_a_class_are_counted():
    target = np.array([0] * 96 + [1] * 4)
    interval = bootstrap_interval(balanced_accuracy, target, np.zeros(100, int))
    assert interval.discarded == pytest.approx(2000 * np.exp(-4), rel=0.4)
    assert (interval.estimate, interval.low, interval.high) == (0.5, 0.5, 0.5)


def test_a_statistic_without_spread_has_an_interval_without_width():
    for method in ("percentile", "bca"):
        interval = bootstrap_interval(accuracy, np.ones(30), np.ones(30), method=method)
        assert (interval.low, interval.high) == (1, 1)


def test_an_undefined_statistic_is_refused():
    with pytest.raises(UserError, match="undefined on these samples"):
        bootstrap_interval(auroc, np.ones(10), np.arange(10.0))


def test_paired_difference_is_that_of_the_same_patients():
    difference = bootstrap_difference(auroc, Y, A, B)
    assert difference.estimate == pytest.approx(0.75188958 - 0.63737708, abs=1e-8)
    assert difference.low > 0
    assert 2 / 2001 <= difference.p_value < 0.01  # DeLong: 0.00107
    reverse = bootstrap_difference(auroc, Y, B, A)
    assert (reverse.low, reverse.high) == pytest.approx((-difference.high, -difference.low))
    assert reverse.p_value == difference.p_value


def test_pairing_narrows_the_interval_of_models_that_agree():
    close = A + RNG.normal(0, 0.1, 400)
    paired = bootstrap_difference(auroc, Y, A, close)
    alone = bootstrap_interval(auroc, Y, A)
    assert paired.high - paired.low < 0.3 * (alone.high - alone.low)


def test_p_is_one_for_the_same_model_and_uniform_without_a_difference():
    assert bootstrap_difference(auroc, Y, A, A).p_value == 1
    rng = np.random.default_rng(2)
    p = [
        bootstrap_difference(auroc, Y, *(Y + rng.normal(0, 1.2, (2, 400))), replicates=200).p_value for _ in range(200)
    ]
    assert np.mean(np.array(p) < 0.05) < 0.1
    assert 0.4 < np.median(p) < 0.65


def test_the_seed_decides():
    intervals = [bootstrap_interval(auroc, Y, A, seed=seed) for seed in (0, 0, 1)]
    assert intervals[0] == intervals[1] != intervals[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": 1.0}, r"level must be in \(0, 1\)"),
        ({"method": "t"}, "method must be"),
        ({"replicates": 0}, "replicates must be at least 1"),
        ({"groups": ["a"]}, "must have shape"),
    ],
)
def test_bad_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(auroc, Y, A, **options)


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="same length"):
        bootstrap_interval(auroc, Y, A[:-1])

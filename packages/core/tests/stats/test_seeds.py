import numpy as np
import pytest

from medbolt.core.stats import accuracy, auroc, bootstrap_interval, seed_interval, seeds_bootstrap, seeds_difference

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 300)
SIGNAL = Y + RNG.normal(0, 1.0, 300)


def runs(noise: float, seeds: int = 5) -> list[np.ndarray]:
    return [SIGNAL + RNG.normal(0, noise, 300) for _ in range(seeds)]


def test_seed_interval_uses_student_s_t():
    values = np.array([0.81, 0.84, 0.80, 0.83, 0.87])
    interval = seed_interval(values)
    half = 2.7764451 * values.std(ddof=1) / np.sqrt(5)
    assert (interval.estimate, interval.low, interval.high) == pytest.approx(
        (values.mean(), values.mean() - half, values.mean() + half)
    )


@pytest.mark.parametrize("values", [[0.8], [0.8, np.nan], [[0.8, 0.9]]])
def test_seed_interval_needs_two_finite_values(values):
    with pytest.raises(ValueError, match="at least two finite scores"):
        seed_interval(values)


def test_equal_runs_leave_only_the_patients_to_vary():
    both = seeds_bootstrap(auroc, Y, [SIGNAL] * 3)
    patients = bootstrap_interval(auroc, Y, SIGNAL)
    assert (both.estimate, both.low, both.high) == pytest.approx((patients.estimate, patients.low, patients.high))


def test_one_answer_for_all_patients_leaves_only_the_seeds_to_vary():
    interval = seeds_bootstrap(accuracy, np.ones(50), [np.ones(50)] * 3 + [np.zeros(50)] * 3, replicates=4000)
    draws = np.random.default_rng(5).integers(0, 2, (200000, 6)).mean(1)
    assert interval.estimate == 0.5
    assert (interval.low, interval.high) == pytest.approx(tuple(np.quantile(draws, [0.025, 0.975])), abs=0.01)


def test_seeds_widen_the_interval_of_patients():
    different = runs(2.0)
    both = seeds_bootstrap(auroc, Y, different)

    def mean(target, *outputs, weight=None):
        return np.mean([auroc(target, output, weight) for output in outputs], axis=0)

    patients = bootstrap_interval(mean, Y, *different)
    assert both.estimate == pytest.approx(patients.estimate)
    assert both.high - both.low > patients.high - patients.low


def test_seeds_are_paired_in_a_comparison():
    noise = runs(1.5)
    difference = seeds_difference(auroc, Y, noise, [run + RNG.normal(0, 0.05, 300) for run in noise])
    shuffled = seeds_difference(auroc, Y, noise, [*noise[1:], noise[0]])
    assert difference.high - difference.low < 0.3 * (shuffled.high - shuffled.low)
    assert shuffled.estimate == pytest.approx(0)
    assert shuffled.p_value > 0.5


def test_a_better_method_is_found():
    difference = seeds_difference(auroc, Y, runs(0.5), runs(3.0))
    assert difference.low > 0
    assert difference.p_value < 0.01


def test_runs_must_pair_up_and_be_several():
    with pytest.raises(ValueError, match="got 2 and 3 runs"):
        seeds_difference(auroc, Y, runs(1, 2), runs(1, 3))
    with pytest.raises(ValueError, match="at least two runs"):
        seeds_bootstrap(auroc, Y, runs(1, 1))

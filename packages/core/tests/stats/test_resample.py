import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medbolt.core.errors import UserError
from medbolt.core.stats import auroc, bootstrap_interval, from_samples
from medbolt.core.stats import resample as module
from medbolt.core.stats.resample import Resampler

RNG = np.random.default_rng(0)
Y = RNG.integers(0, 2, 60)
SCORE = Y + RNG.normal(size=60)


def weights(resampler: Resampler, replicates: int = 50, seed: int = 0) -> np.ndarray:
    return np.concatenate(list(resampler.bootstrap(replicates, np.random.default_rng(seed))))


def test_every_replicate_draws_as_many_units_as_there_are():
    drawn = weights(Resampler(20))
    assert drawn.shape == (50, 20)
    np.testing.assert_array_equal(drawn.sum(1), 20)
    assert drawn.mean(0) == pytest.approx(1, abs=0.5)


def test_samples_of_a_group_are_drawn_together():
    groups = np.array(list("aabbbc"))
    drawn = weights(Resampler(6, groups))
    np.testing.assert_array_equal(drawn[:, 0], drawn[:, 1])
    np.testing.assert_array_equal(drawn[:, 2:4], drawn[:, 3:5])
    np.testing.assert_array_equal(drawn[:, [0, 2, 5]].sum(1), 3)


def test_strata_keep_their_number_of_units():
    classes = np.array([0] * 10 + [1] * 3)
    drawn = weights(Resampler(13, classes=classes))
    np.testing.assert_array_equal(drawn[:, :10].sum(1), 10)
    np.testing.assert_array_equal(drawn[:, 10:].sum(1), 3)


def test_a_group_of_several_classes_belongs_to_the_rarest():
    groups, classes = np.array(list("aabbccdd")), np.array([0, 1, 0, 0, 0, 0, 0, 1])
    resampler = Resampler(8, groups, classes)
    assert resampler.stratum[0] == resampler.stratum[3] != resampler.stratum[1] == resampler.stratum[2]


def test_chunks_do_not_change_the_draws(monkeypatch):
    whole = weights(Resampler(20))
    monkeypatch.setattr(module, "_CHUNK", 60)
    np.testing.assert_array_equal(weights(Resampler(20)), whole)


def test_the_jackknife_leaves_out_one_unit_at_a_time():
    left_out = np.concatenate(list(Resampler(4, list("abba")).jackknife()))
    np.testing.assert_array_equal(left_out, [[0, 1, 1, 0], [1, 0, 0, 1]])


def test_a_function_of_samples_gives_the_same_interval_as_the_weighted_metric():
    slow = bootstrap_interval(from_samples(roc_auc_score), Y, SCORE, replicates=100)
    fast = bootstrap_interval(auroc, Y, SCORE, replicates=100)
    assert (slow.estimate, slow.low, slow.high) == pytest.approx((fast.estimate, fast.low, fast.high), abs=1e-12)


def test_a_function_of_samples_is_not_called_without_a_class():
    def strict(target, score):
        assert len(np.unique(target)) == 2
        return float(score.mean())

    values = from_samples(strict)(np.array([0, 1]), np.array([3.0, 5.0]), weight=np.array([[2, 0], [1, 1]]))
    np.testing.assert_array_equal(values, [np.nan, 4])


def test_one_unit_cannot_be_resampled():
    with pytest.raises(UserError, match="at least two independent units .* got 1"):
        Resampler(5, ["same"] * 5)


def test_columns_of_another_length_are_refused():
    with pytest.raises(ValueError, match=r"shape \(5,\), got \(4,\)"):
        Resampler(5, ["a"] * 4)

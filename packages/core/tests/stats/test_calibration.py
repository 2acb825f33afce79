import numpy as np
import pytest
import torch
from sklearn.metrics import brier_score_loss
from torchmetrics.functional.classification import multiclass_calibration_error

from medbolt.core.stats import brier_score, calibration_error, reliability

RNG = np.random.default_rng(0)
PROBABILITY = RNG.dirichlet(np.ones(3), 400)
TARGET = np.array([RNG.choice(3, p=row) for row in PROBABILITY])
WEIGHT = RNG.integers(0, 3, (4, 400))


def test_calibration_error_equals_torchmetrics():
    theirs = multiclass_calibration_error(torch.tensor(PROBABILITY), torch.tensor(TARGET), num_classes=3, n_bins=15)
    assert calibration_error(TARGET, PROBABILITY) == pytest.approx(float(theirs), abs=1e-6)


def test_calibration_error_with_weights_equals_repetition():
    expected = [calibration_error(TARGET.repeat(row), PROBABILITY.repeat(row, axis=0)) for row in WEIGHT]
    np.testing.assert_allclose(calibration_error(TARGET, PROBABILITY, WEIGHT), expected)


def test_calibration_error_of_one_bin_is_confidence_minus_accuracy():
    right = (PROBABILITY.argmax(1) == TARGET).mean()
    assert calibration_error(TARGET, PROBABILITY, bins=1) == pytest.approx(abs(PROBABILITY.max(1).mean() - right))


def test_certainty_belongs_to_the_last_bin():
    assert calibration_error([0, 1], [[1.0, 0.0], [0.0, 1.0]]) == 0
    assert calibration_error([1], [[1.0, 0.0]]) == 1
    assert reliability([0], [[1.0, 0.0]], bins=4).count.tolist() == [0, 0, 0, 1]


def test_reliability_bins_give_the_calibration_error():
    bins = reliability(TARGET, PROBABILITY)
    gap = np.nan_to_num(np.abs(bins.accuracy - bins.confidence)) * bins.count
    assert bins.count.sum() == 400
    assert gap.sum() / 400 == pytest.approx(calibration_error(TARGET, PROBABILITY))
    inside = ~np.isnan(bins.confidence)
    assert (bins.confidence[inside] >= bins.edges[:-1][inside]).all()
    assert (bins.confidence[inside] <= bins.edges[1:][inside]).all()


def test_reliability_of_labels_counts_every_label():
    bins = reliability([[1, 0], [1, 1]], [[0.9, 0.2], [0.8, 0.3]], bins=2)
    np.testing.assert_array_equal(bins.count, [2, 2])
    np.testing.assert_allclose(bins.accuracy, [0.5, 1.0])


def test_brier_score_equals_scikit_learn():
    theirs = brier_score_loss(TARGET, PROBABILITY, scale_by_half=False)
    expected = [brier_score_loss(TARGET, PROBABILITY, sample_weight=row, scale_by_half=False) for row in WEIGHT]
    assert brier_score(TARGET, PROBABILITY) == pytest.approx(theirs)
    np.testing.assert_allclose(brier_score(TARGET, PROBABILITY, WEIGHT), expected)

import numpy as np
import pytest
from sklearn import metrics

from medbolt.core.stats import accuracy, balanced_accuracy, confusion_matrix, precision, recall

RNG = np.random.default_rng(0)
TARGET, PREDICTION = RNG.integers(0, 5, 300), RNG.integers(0, 5, 300)
WEIGHT = RNG.integers(0, 4, (6, 300))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [(accuracy, metrics.accuracy_score), (balanced_accuracy, metrics.balanced_accuracy_score)],
)
def test_equals_scikit_learn_with_and_without_weights(ours, theirs):
    assert ours(TARGET, PREDICTION) == pytest.approx(theirs(TARGET, PREDICTION))
    expected = [theirs(TARGET, PREDICTION, sample_weight=row) for row in WEIGHT]
    np.testing.assert_allclose(ours(TARGET, PREDICTION, WEIGHT), expected)


@pytest.mark.parametrize(("ours", "theirs"), [(recall, metrics.recall_score), (precision, metrics.precision_score)])
def test_of_a_class_equals_scikit_learn(ours, theirs):
    truth, predicted = TARGET == 2, PREDICTION == 2
    assert ours(truth, predicted) == pytest.approx(theirs(truth, predicted))
    expected = [theirs(truth, predicted, sample_weight=row) for row in WEIGHT]
    np.testing.assert_allclose(ours(truth, predicted, WEIGHT), expected)


def test_a_class_that_is_predicted_but_never_true_does_not_lower_balanced_accuracy():
    assert balanced_accuracy([0, 0, 1, 1], [0, 0, 1, 2]) == 0.75


def test_undefined_without_members_or_weight():
    assert np.isnan(recall([0, 0], [1, 0]))
    assert np.isnan(precision([1, 1], [0, 0]))
    assert np.isnan(balanced_accuracy([], []))
    np.testing.assert_array_equal(balanced_accuracy([0, 1], [0, 1], [[1, 0], [1, 1]]), [np.nan, 1])


def test_confusion_matrix_equals_scikit_learn():
    np.testing.assert_array_equal(confusion_matrix(TARGET, PREDICTION, 5), metrics.confusion_matrix(TARGET, PREDICTION))

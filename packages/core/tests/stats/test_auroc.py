import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from medbolt.core.stats import auroc, class_auroc, macro_auroc

RNG = np.random.default_rng(0)
TARGET = RNG.integers(0, 2, 200)
SCORE = np.round(TARGET + RNG.normal(0, 1.5, 200), 1)  # rounded: many ties
LABEL = RNG.integers(0, 4, 300)
PROBABILITY = RNG.dirichlet(np.ones(4), 300) + 0.3 * np.eye(4)[LABEL]
PROBABILITY /= PROBABILITY.sum(1, keepdims=True)


def test_equals_the_share_of_pairs_in_the_right_order():
    pairs = [(s > t) + 0.5 * (s == t) for s in SCORE[TARGET == 1] for t in SCORE[TARGET == 0]]
    assert auroc(TARGET, SCORE) == pytest.approx(np.mean(pairs), abs=1e-12)


def test_equals_scikit_learn_with_and_without_weights():
    weight = RNG.integers(0, 4, (5, 200))
    expected = [roc_auc_score(TARGET, SCORE, sample_weight=row) for row in weight]
    assert auroc(TARGET, SCORE) == pytest.approx(roc_auc_score(TARGET, SCORE), abs=1e-12)
    np.testing.assert_allclose(auroc(TARGET, SCORE, weight), expected, atol=1e-12)


def test_a_weight_is_a_repetition():
    weight = RNG.integers(0, 3, 200)
    assert auroc(TARGET, SCORE, weight) == pytest.approx(auroc(TARGET.repeat(weight), SCORE.repeat(weight)), abs=1e-12)


def test_limits():
    assert auroc([0, 0, 1], [1, 2, 3]) == 1
    assert auroc([1, 1, 0], [1, 2, 3]) == 0
    assert auroc([0, 1, 0, 1], [5, 5, 5, 5]) == 0.5
    assert auroc([0, 1], [-np.inf, np.inf]) == 1


def test_a_class_without_samples_or_without_weight_is_undefined():
    assert np.isnan(auroc([1, 1], [0.1, 0.2]))
    np.testing.assert_array_equal(auroc([1, 0], [2, 1], [[1, 0], [0, 1], [1, 1]]), [np.nan, np.nan, 1])


@pytest.mark.parametrize(
    ("target", "score", "message"),
    [([0, 2], [0.1, 0.2], "0 and 1"), ([0, 1], [0.1, np.nan], "score of sample 1 is NaN"), ([0, 1], [0.1], "shape")],
)
def test_bad_input_is_refused(target, score, message):
    with pytest.raises(ValueError, match=message):
        auroc(target, score)


def test_macro_equals_scikit_learn():
    expected = roc_auc_score(LABEL, PROBABILITY, multi_class="ovr", average="macro")
    assert macro_auroc(LABEL, PROBABILITY) == pytest.approx(expected, abs=1e-12)


def test_macro_of_labels_equals_scikit_learn():
    labels = PROBABILITY + RNG.normal(0, 0.3, PROBABILITY.shape) > 0.4
    assert macro_auroc(labels, PROBABILITY) == pytest.approx(roc_auc_score(labels, PROBABILITY), abs=1e-12)


def test_macro_takes_many_weights_at_once():
    weight = RNG.integers(0, 3, (4, 300))
    expected = [macro_auroc(LABEL, PROBABILITY, row) for row in weight]
    np.testing.assert_allclose(macro_auroc(LABEL, PROBABILITY, weight), expected, atol=1e-12)


def test_a_class_that_the_target_lacks_is_left_out_and_can_be_counted():
    here = LABEL != 2
    each = class_auroc(LABEL[here], PROBABILITY[here])
    assert np.isnan(each).tolist() == [False, False, True, False]
    assert macro_auroc(LABEL[here], PROBABILITY[here]) == pytest.approx(np.nanmean(each))


def test_macro_is_undefined_where_a_class_has_no_weight_or_there_is_one_class():
    assert np.isnan(macro_auroc(LABEL, PROBABILITY, (LABEL != 2)[None].astype(int))).all()
    assert np.isnan(macro_auroc([1, 1], [[0.5, 0.5], [0.2, 0.8]]))
    assert np.isnan(macro_auroc([1, 1], [[0.5, 0.5], [0.2, 0.8]], np.ones((3, 2)))).shape == (3,)


def test_a_label_out_of_range_is_refused():
    with pytest.raises(ValueError, match="target must be in 0 to 1, got 0 to 2"):
        macro_auroc([0, 2], [[0.5, 0.5], [0.2, 0.8]])

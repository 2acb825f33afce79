import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from medbolt.core.stats import quadratic_kappa


def test_equals_scikit_learn_with_and_without_weights():
    rng = np.random.default_rng(0)
    target = rng.integers(0, 5, 300)
    prediction = np.clip(target + rng.integers(-2, 3, 300), 0, 4)
    weight = rng.integers(0, 4, (6, 300))
    expected = [cohen_kappa_score(target, prediction, weights="quadratic", sample_weight=row) for row in weight]
    assert quadratic_kappa(target, prediction) == pytest.approx(
        cohen_kappa_score(target, prediction, weights="quadratic")
    )
    np.testing.assert_allclose(quadratic_kappa(target, prediction, weight), expected)


def test_limits():
    assert quadratic_kappa([0, 1, 2], [0, 1, 2]) == 1
    assert quadratic_kappa([0, 2], [2, 0]) == -1
    assert quadratic_kappa([0, 1], [1, 1]) == 0
    assert np.isnan(quadratic_kappa([1, 1], [1, 1]))

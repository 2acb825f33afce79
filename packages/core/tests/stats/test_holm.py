import numpy as np
import pytest

from medbolt.core.stats import holm


def test_equals_the_step_down_procedure():
    p = np.random.default_rng(0).random(12) ** 3
    adjusted = holm(p)
    for alpha in (0.01, 0.05, 0.2):
        rejected = np.zeros(12, bool)
        for step, i in enumerate(np.argsort(p)):
            if p[i] > alpha / (12 - step):
                break
            rejected[i] = True
        np.testing.assert_array_equal(adjusted <= alpha, rejected)


def test_worked_example_and_limits():
    np.testing.assert_allclose(holm([0.04, 0.01, 0.03, 0.005]), [0.06, 0.03, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.03]), [0.03])
    np.testing.assert_allclose(holm([0.9, 0.8]), [1, 1])
    assert holm([]).size == 0


@pytest.mark.parametrize("p", [[0.1, np.nan], [1.2], [-0.1], [[0.1]]])
def test_what_is_no_p_value_is_refused(p):
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
        holm(p)

import math

import pytest
import torch

from medbolt.core.errors import UserError
from medbolt.noisy.noise.ordinal import OrdinalNoise


def test_equals_the_formula():
    matrix = OrdinalNoise([0.1, 0.2, 0.3, 0.4], reach=0.7, upward=3).transition(4)
    for i in range(4):
        weights = [0 if i == j else (3 if j > i else 1) * math.exp(-(abs(i - j) - 1) / 0.7) for j in range(4)]
        expected = [0.1 * (i + 1) * w / sum(weights) for w in weights]
        expected[i] = 1 - 0.1 * (i + 1)
        assert matrix[i].tolist() == pytest.approx(expected)


def test_neighbours_only_is_the_limit_of_a_short_reach():
    torch.testing.assert_close(OrdinalNoise(0.3, reach=0.01).transition(5), OrdinalNoise(0.3).transition(5))


def test_no_preference_among_grades_is_the_limit_of_a_long_reach():
    matrix = OrdinalNoise(0.4, reach=1e9).transition(5)
    torch.testing.assert_close(matrix, torch.full((5, 5), 0.1, dtype=torch.float64).fill_diagonal_(0.6))


def test_two_grades_work():
    assert OrdinalNoise(0.2)(torch.zeros(5, dtype=torch.int64), 2).shape == (5,)


@pytest.mark.parametrize("options", [{"rate": 1.5}, {"rate": 0.1, "reach": -1}, {"rate": 0.1, "upward": 0}])
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=r"rate|reach|upward"):
        OrdinalNoise(**options)


def test_refuses_another_number_of_grades():
    with pytest.raises(UserError, match="2 noise rates for 5 grades"):
        OrdinalNoise([0.1, 0.2])(torch.tensor([0]), 5)

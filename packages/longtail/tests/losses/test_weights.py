import math

import pytest
import torch

from medbolt.longtail import class_weights

COUNTS = torch.tensor([500.0, 60.0, 9.0, 1.0], dtype=torch.float64)
RULES = {
    "inverse": lambda n: 1 / n,
    "sqrt": lambda n: 1 / math.sqrt(n),
    "effective": lambda n: (1 - 0.99) / (1 - 0.99**n),
    "log": lambda n: 1 - math.log(n / 500),
}


@pytest.mark.parametrize("weighting", RULES)
def test_equals_the_formula_class_by_class(weighting):
    weights = [RULES[weighting](n) for n in COUNTS.tolist()]
    expected = torch.tensor([4 * w / sum(weights) for w in weights], dtype=torch.float64)
    torch.testing.assert_close(class_weights(COUNTS, weighting, beta=0.99), expected)


@pytest.mark.parametrize("weighting", RULES)
def test_an_empty_class_weighs_nothing_and_leaves_the_others_as_they_are(weighting):
    with_empty = class_weights(torch.cat([COUNTS, COUNTS.new_zeros(1)]), weighting)
    torch.testing.assert_close(with_empty[:4], class_weights(COUNTS, weighting))
    assert with_empty[4] == 0


def test_effective_numbers_go_from_no_weighting_to_inverse_frequency():
    torch.testing.assert_close(class_weights(COUNTS, "effective", beta=0.0), torch.ones_like(COUNTS))
    nearly = class_weights(COUNTS, "effective", beta=1 - 1e-9)
    torch.testing.assert_close(nearly, class_weights(COUNTS), rtol=1e-5, atol=0)


def test_isic_s_effective_weights_are_those_published_with_the_split():
    counts = torch.tensor([5000, 2590, 1342, 695, 360, 187, 97, 51], dtype=torch.float32)
    expected = torch.tensor([0.049, 0.085, 0.155, 0.289, 0.549, 1.048, 2.010, 3.815])
    torch.testing.assert_close(class_weights(counts, "effective", 0.9999), expected, atol=6e-4, rtol=0)


@pytest.mark.parametrize("beta", [-0.1, 1.0])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(ValueError, match="beta must be in"):
        class_weights(COUNTS, "effective", beta)

import math

import pytest
import torch

from medbolt.longtail import WeightedCrossEntropyLoss, class_weights
from medbolt.longtail.losses.weights import sample_weights

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


def test_the_power_of_generalised_reweighting():
    weights = [n**-1.2 for n in COUNTS.tolist()]
    expected = torch.tensor([4 * w / sum(weights) for w in weights], dtype=torch.float64)
    torch.testing.assert_close(class_weights(COUNTS, power=1.2), expected)
    torch.testing.assert_close(class_weights(COUNTS, power=0.5), class_weights(COUNTS, "sqrt"))
    torch.testing.assert_close(class_weights(COUNTS, power=0.0), torch.ones_like(COUNTS))
    torch.testing.assert_close(WeightedCrossEntropyLoss(power=1.2).per_class(COUNTS), expected)
    assert class_weights(torch.tensor([1e6, 5e5]), power=10.0).isfinite().all()  # 1e-60 is no float32


def test_a_negative_power_is_refused():
    for make in (lambda: class_weights(COUNTS, power=-1.0), lambda: WeightedCrossEntropyLoss(power=-1.0)):
        with pytest.raises(ValueError, match="power must not be negative"):
            make()


def test_a_sample_weighs_as_its_class_or_as_the_mean_of_its_labels():
    weights = torch.tensor([0.5, 1.0, 3.0])
    torch.testing.assert_close(sample_weights(torch.tensor([2, 0]), weights), torch.tensor([3.0, 0.5]))
    labels = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.25, 0.75, 0.0]])
    torch.testing.assert_close(sample_weights(labels, weights), torch.tensor([1.75, 1.0, 0.875]))
    two = sample_weights(torch.tensor([0.0, 1.0, 0.5]), torch.tensor([0.5, 1.5]))
    torch.testing.assert_close(two, torch.tensor([0.5, 1.5, 1.0]))
    torch.testing.assert_close(sample_weights(labels.ceil().long(), weights), torch.tensor([1.75, 1.0, 0.75]))

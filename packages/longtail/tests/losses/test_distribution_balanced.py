import math

import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import DistributionBalancedLoss

ALPHA, BETA, MU, LAMBDA, KAPPA = 0.1, 10.0, 0.3, 5.0, 0.05


@pytest.mark.parametrize("gamma", [0.0, 2.0])
def test_equals_the_formula_entry_by_entry(gamma, logits, labels, counts):
    n = [max(count, 1) for count in counts]
    expected = torch.zeros_like(logits)
    for i in range(12):
        frequency = sum(labels[i, c].item() / n[c] for c in range(5))
        for c in range(5):
            ratio = 1 / n[c] / frequency if frequency else math.inf
            weight = ALPHA + (1 / (1 + math.exp(-BETA * (ratio - MU))) if frequency else 1)
            shifted = logits[i, c] - KAPPA / LAMBDA * math.log((600 - counts[c]) / n[c])
            p = (shifted if labels[i, c] else -LAMBDA * shifted).sigmoid()
            expected[i, c] = -weight * (1 - p) ** gamma * p.log() / (1 if labels[i, c] else LAMBDA)
    loss = DistributionBalancedLoss(600, gamma=gamma, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, labels), expected)


def test_stripped_of_everything_it_is_binary_cross_entropy(logits, labels, counts):
    loss = DistributionBalancedLoss(600, 0.5, 0.0, 0.0, 1.0, 0.0, 0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, labels), F.binary_cross_entropy_with_logits(logits, labels))


def test_a_label_that_comes_with_a_rarer_one_counts_less():
    loss = DistributionBalancedLoss(100, class_counts=[50, 2], reduction="none")
    alone, together = loss(torch.zeros(2, 2), torch.tensor([[1.0, 0.0], [1.0, 1.0]]))[:, 0]
    assert together < 0.5 * alone


def test_a_scale_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="negative_scale must be positive"):
        DistributionBalancedLoss(negative_scale=0.0)

import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import WeightedBinaryCrossEntropyLoss


def test_equals_the_formula_entry_by_entry(logits, labels, counts):
    expected = torch.zeros_like(logits)
    for i in range(12):
        for c in range(5):
            weight = min(((600 - counts[c]) / max(counts[c], 1)) ** 0.5, 20)
            p = logits[i, c].sigmoid()
            expected[i, c] = -weight * p.log() if labels[i, c] else -(1 - p).log()
    loss = WeightedBinaryCrossEntropyLoss(600, 0.5, 20.0, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, labels), expected)


def test_without_power_it_is_binary_cross_entropy(logits, labels, counts):
    loss = WeightedBinaryCrossEntropyLoss(power=0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, labels), F.binary_cross_entropy_with_logits(logits, labels))


def test_a_label_that_is_always_present_keeps_a_weight(logits, labels):
    loss = WeightedBinaryCrossEntropyLoss(100, class_counts=[100] * 5, reduction="none")
    assert (loss(logits, torch.ones_like(labels)) > 0).all()


def test_a_bound_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="max_weight must be positive"):
        WeightedBinaryCrossEntropyLoss(max_weight=0.0)

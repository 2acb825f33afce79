import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import LogitAdjustedLoss, VectorScalingLoss


def test_equals_the_formula_sample_by_sample(logits, target, counts):
    n = torch.tensor(counts).clamp(min=1).double()
    expected = []
    for z, y in zip(logits, target, strict=True):
        scaled = [(n[c] / 500) ** 0.2 * z[c] + 1.2 * (n[c] / n.sum()).log() for c in range(5)]
        expected.append(-torch.stack(scaled).log_softmax(0)[y])
    loss = VectorScalingLoss(0.2, 1.2, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_without_scale_it_is_logit_adjustment_and_without_both_cross_entropy(logits, target, counts):
    loss = VectorScalingLoss(0.0, 0.7, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), LogitAdjustedLoss(0.7, class_counts=counts)(logits, target))
    loss = VectorScalingLoss(0.0, 0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma must not be negative"):
        VectorScalingLoss(-0.1)

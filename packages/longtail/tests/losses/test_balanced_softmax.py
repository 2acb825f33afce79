import torch

from medbolt.longtail import BalancedSoftmaxLoss, LogitAdjustedLoss


def test_equals_the_formula_sample_by_sample(logits, target, counts):
    n = [max(count, 1) for count in counts]
    expected = []
    for z, y in zip(logits, target, strict=True):
        mass = [n[c] * z[c].exp() for c in range(5)]
        expected.append(-(mass[y] / sum(mass)).log())
    loss = BalancedSoftmaxLoss(class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_is_logit_adjustment_with_tau_one(logits, target, soft, counts):
    ours, other = BalancedSoftmaxLoss(class_counts=counts), LogitAdjustedLoss(1.0, class_counts=counts)
    torch.testing.assert_close(ours(logits, target), other(logits, target))
    torch.testing.assert_close(ours(logits, soft), other(logits, soft))

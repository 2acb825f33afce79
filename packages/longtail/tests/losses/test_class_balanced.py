import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import ClassBalancedLoss, FocalLoss, WeightedCrossEntropyLoss


def weights(counts, beta):
    raw = torch.tensor([(1 - beta) / (1 - beta**n) if n else 0.0 for n in counts], dtype=torch.float64)
    return raw * (torch.tensor(counts) > 0).sum() / raw.sum()


@pytest.mark.parametrize(("form", "gamma"), [("focal", 2.0), ("sigmoid", 0.0)])
def test_equals_the_formula_entry_by_entry(form, gamma, logits, target, one_hot, counts):
    p = logits.sigmoid()
    right = torch.where(one_hot(target).bool(), p, 1 - p)
    expected = weights(counts, 0.99)[target] * (-((1 - right) ** gamma) * right.log()).sum(1)
    loss = ClassBalancedLoss(form, beta=0.99, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), expected)


def test_softmax_form_is_cross_entropy_without_beta_and_weighted_cross_entropy_with(logits, target, counts):
    loss = ClassBalancedLoss("softmax", beta=0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))
    loss = ClassBalancedLoss("softmax", beta=0.9, class_counts=counts)
    other = WeightedCrossEntropyLoss("effective", beta=0.9, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), other(logits, target))


def test_focal_form_is_focal_loss_without_beta(logits, target, counts):
    loss = ClassBalancedLoss(beta=0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), FocalLoss(activation="sigmoid")(logits, target))


def test_towards_one_it_is_inverse_frequency(logits, target, counts):
    loss = ClassBalancedLoss("softmax", beta=1 - 1e-9, class_counts=counts)
    inverse = WeightedCrossEntropyLoss("inverse", class_counts=counts)
    torch.testing.assert_close(loss(logits, target), inverse(logits, target), rtol=1e-5, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_labels_may_be_integers(rows):
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [0, 1, 0]])[:rows]
    logits = torch.linspace(-1, 1, 3 * rows).reshape(rows, 3)
    loss = ClassBalancedLoss(class_counts=[50, 20, 5], reduction="none")
    torch.testing.assert_close(loss(logits, labels), loss(logits, labels.float()), rtol=0, atol=0)

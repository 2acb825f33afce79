import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import WeightedCrossEntropyLoss, class_weights


@pytest.mark.parametrize("weighting", ["inverse", "sqrt", "effective", "log"])
def test_equals_the_formula_sample_by_sample(weighting, logits, target, counts):
    weights = class_weights(torch.tensor(counts).double(), weighting)
    expected = torch.stack([weights[y] * -z.log_softmax(0)[y] for z, y in zip(logits, target, strict=True)])
    loss = WeightedCrossEntropyLoss(weighting, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), expected)


def test_soft_targets_weigh_the_losses_of_the_classes(logits, soft, counts):
    weights = class_weights(torch.tensor(counts).double())
    loss = WeightedCrossEntropyLoss(class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, soft), -(soft * weights * logits.log_softmax(1)).sum(1))


def test_is_cross_entropy_for_equal_counts(logits, target):
    loss = WeightedCrossEntropyLoss(class_counts=[7] * 5)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))


def test_a_batch_of_one_class_keeps_its_weight(logits, counts):
    target = torch.full((12,), 2)
    loss = WeightedCrossEntropyLoss(class_counts=counts)(logits, target)
    weight = class_weights(torch.tensor(counts).double())[2]
    torch.testing.assert_close(loss, weight * F.cross_entropy(logits, target))

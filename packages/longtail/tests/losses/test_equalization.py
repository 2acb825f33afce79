import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import EqualizationLoss


def test_softmax_form_leaves_rare_negatives_out(logits, target, counts):
    loss = EqualizationLoss(threshold=0.05, gamma=1.0, class_counts=counts, reduction="none")
    rare = [n / sum(counts) < 0.05 for n in counts]
    assert sum(rare) == 3
    expected = []
    for z, y in zip(logits, target.tolist(), strict=True):
        kept = [c for c in range(5) if c == y or not rare[c]]
        expected.append(z[kept].logsumexp(0) - z[y])
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_gamma_is_the_probability_of_being_left_out(counts):
    loss = EqualizationLoss(threshold=0.05, gamma=0.7, class_counts=counts, reduction="none")
    torch.manual_seed(0)
    losses = loss(torch.zeros(4000, 5), torch.zeros(4000).long())
    number_left = losses.exp() - 2  # of the three rare classes
    assert number_left.mean().item() == pytest.approx(0.9, abs=3 * (3 * 0.21 / 4000) ** 0.5)


def test_sigmoid_form_weighs_entries(logits, labels, counts):
    loss = EqualizationLoss(0.05, activation="sigmoid", num_samples=600, class_counts=counts, reduction="none")
    expected = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    for i in range(12):
        for c in range(5):
            if counts[c] / 600 < 0.05 and labels[i, c] == 0:
                expected[i, c] = 0
    torch.testing.assert_close(loss(logits, labels), expected)


def test_without_rare_classes_and_in_evaluation_it_is_cross_entropy(logits, target, labels, counts):
    loss = EqualizationLoss(threshold=0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))
    loss = EqualizationLoss(class_counts=counts).eval()
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))
    loss = EqualizationLoss(activation="sigmoid", class_counts=counts).eval()
    torch.testing.assert_close(loss(logits, labels), F.binary_cross_entropy_with_logits(logits, labels))


def test_by_default_it_does_something_for_few_classes(target):
    """MONICA's threshold leaves ISIC's eight classes as they are."""
    counts = [5000, 2590, 1342, 695, 360, 187, 97, 51]
    logits = torch.zeros(12, 8)
    assert EqualizationLoss(4.3e-4, class_counts=counts)(logits, target) == F.cross_entropy(logits, target)
    assert EqualizationLoss(class_counts=counts)(logits, target) < F.cross_entropy(logits, target)


def test_a_probability_out_of_range_is_refused():
    with pytest.raises(ValueError, match="gamma must be in"):
        EqualizationLoss(gamma=1.5)

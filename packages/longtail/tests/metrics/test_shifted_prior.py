import pytest
import torch
from sklearn.metrics import accuracy_score

from medbolt.longtail import shifted_prior_accuracy


def test_is_the_accuracy_on_a_test_set_of_these_frequencies():
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, 3, (300,), generator=generator)
    predicted = torch.randint(0, 3, (300,), generator=generator).where(
        torch.rand(300, generator=generator) < 0.5, target
    )
    recall = torch.stack([(predicted[target == c] == c).double().mean() for c in range(3)])
    copies = torch.tensor([7, 2, 1])[target]  # each sample as often as its class weighs
    prior = copies.new_tensor([float((copies * (target == c)).sum()) for c in range(3)], dtype=torch.float64)
    expected = accuracy_score(target.repeat_interleave(copies), predicted.repeat_interleave(copies))
    assert float(shifted_prior_accuracy(recall, prior)) == pytest.approx(expected)


def test_equal_frequencies_give_balanced_accuracy_and_scale_is_free():
    recall = torch.tensor([0.2, 0.4, 0.9])
    assert float(shifted_prior_accuracy(recall, [1, 1, 1])) == pytest.approx(0.5)
    assert shifted_prior_accuracy(recall, [2, 4, 6]) == shifted_prior_accuracy(recall, [1, 2, 3])


def test_classes_without_recall_are_left_out():
    assert float(shifted_prior_accuracy(torch.tensor([0.5, torch.nan, 1.0]), [1, 8, 1])) == 0.75
    assert shifted_prior_accuracy(torch.tensor([torch.nan, 1.0]), [1, 0]).isnan()


@pytest.mark.parametrize("prior", [[1, 1], [1, -1, 1]])
def test_other_lengths_and_negative_frequencies_are_refused(prior):
    with pytest.raises(ValueError, match="one frequency a class, 3 in all, none negative"):
        shifted_prior_accuracy(torch.zeros(3), prior)

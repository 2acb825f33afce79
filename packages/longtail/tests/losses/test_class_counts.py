import pytest
import torch

from medbolt.core import UserError
from medbolt.core.losses import tell_class_counts
from medbolt.longtail import (
    BalancedSoftmaxLoss,
    DistributionBalancedLoss,
    EqualizationLoss,
    LDAMLoss,
    VectorScalingLoss,
    WeightedBinaryCrossEntropyLoss,
)
from medbolt.longtail.losses.class_counts import log_prior, smallest_count

COUNTS = torch.tensor([6.0, 3.0, 1.0, 0.0])


def test_an_empty_class_has_the_prior_of_one_sample():
    torch.testing.assert_close(log_prior(COUNTS).exp(), torch.tensor([6.0, 3, 1, 1]) / 11)


def test_the_smallest_count_passes_over_empty_classes():
    assert smallest_count(COUNTS) == 1


@pytest.mark.parametrize("counts", [[], [[1, 2]], [1.5, 2.0], [-1, 3], [0, 0]])
def test_what_is_no_list_of_counts_is_refused(counts):
    with pytest.raises(ValueError, match="class_counts must"):
        BalancedSoftmaxLoss(class_counts=counts)


def test_another_number_of_classes_is_named():
    with pytest.raises(UserError, match="BalancedSoftmaxLoss has 2 class_counts but the network gives 3 logits"):
        BalancedSoftmaxLoss(class_counts=[1, 2])(torch.zeros(1, 3), torch.tensor([0]))


def test_what_a_validation_made_of_the_counts_serves_training():
    loss, logits = LDAMLoss(class_counts=[4, 1]), torch.zeros(1, 2, requires_grad=True)
    with torch.inference_mode():
        loss(logits, torch.tensor([1]))
    loss(logits, torch.tensor([1])).backward()
    weighted = VectorScalingLoss(class_counts=[4, 1])
    with torch.inference_mode():
        weighted(logits, torch.tensor([1]))
    weighted(logits, torch.tensor([1])).backward()
    assert logits.grad.isfinite().all()


OF_SAMPLES = [
    WeightedBinaryCrossEntropyLoss,
    DistributionBalancedLoss,
    lambda **o: EqualizationLoss(0.15, activation="sigmoid", **o),
]
LOGITS, LABELS = torch.tensor([[0.3, -1.0, 2.0]]), torch.tensor([[1.0, 0.0, 0.0]])


@pytest.mark.parametrize("make", OF_SAMPLES, ids=["weighted BCE", "distribution-balanced", "EQL"])
def test_the_number_of_samples_is_told_with_the_counts_and_forgotten_with_them(make):
    counts, told = [40, 20, 10], make()
    given, summed = make(class_counts=counts, num_samples=60), make(class_counts=counts)
    assert given(LOGITS, LABELS) != summed(LOGITS, LABELS)  # 10 of 60 are above 0.15, of 70 are not
    for number, expected in ((60, given), (None, summed), (60, given)):
        tell_class_counts(told, counts, number)
        assert told(LOGITS, LABELS) == expected(LOGITS, LABELS)


@pytest.mark.parametrize("make", OF_SAMPLES, ids=["weighted BCE", "distribution-balanced", "EQL"])
def test_what_the_user_gave_stays(make):
    of_both, of_counts, of_samples = (
        make(class_counts=[40, 20, 10], num_samples=60), make(class_counts=[40, 20, 10]), make(num_samples=60)
    )  # fmt: skip
    for loss in (of_both, of_counts, of_samples):
        tell_class_counts(loss, [5, 5, 5], 500)
    assert [loss.num_samples for loss in (of_both, of_counts, of_samples)] == [60, None, 60]
    assert of_samples.class_counts.tolist() == [5, 5, 5]
    with pytest.raises(ValueError, match="num_samples must be positive, got 0"):
        make(num_samples=0)


def test_printing_shows_the_counts():
    assert repr(BalancedSoftmaxLoss(class_counts=[1, 2])) == "BalancedSoftmaxLoss(class_counts=[1, 2])"

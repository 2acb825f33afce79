import pytest
import torch

from medbolt.longtail import ProgressivelyBalancedSampler


@pytest.mark.parametrize(("epoch", "balance"), [(0, 0.0), (3, 0.3), (10, 1.0), (15, 1.0)])
def test_classes_move_from_their_frequency_to_equality(epoch, balance, targets, sizes, assert_frequencies):
    sampler = ProgressivelyBalancedSampler(targets, epochs=10)
    sampler.set_epoch(epoch)
    expected = (1 - balance) * sizes / sizes.sum() + balance / 4
    assert_frequencies(torch.bincount(targets[sampler.order()]).double(), expected)


def test_no_epochs_are_refused(targets):
    with pytest.raises(ValueError, match="epochs must be at least 1"):
        ProgressivelyBalancedSampler(targets, epochs=0)

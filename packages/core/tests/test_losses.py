import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.core.losses import reduce, require_several_labels, target_probability, tell_class_counts

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.0, 4.0, 1.0]])


def test_reduce_is_mean_sum_or_nothing():
    losses = torch.tensor([1.0, 2.0, 6.0])
    assert reduce(losses, "mean") == 3
    assert reduce(losses, "sum") == 9
    assert reduce(losses, "none") is losses
    with pytest.raises(ValueError, match="got 'average'"):
        reduce(losses, "average")


def test_target_probability_is_softmax_at_the_target():
    target = torch.tensor([2, 1])
    torch.testing.assert_close(target_probability(LOGITS, target), LOGITS.softmax(1)[[0, 1], target])


def test_one_hot_and_hard_targets_agree_and_maps_work():
    target = torch.tensor([2, 1])
    soft = nn.functional.one_hot(target, 3).float()
    torch.testing.assert_close(target_probability(LOGITS, soft), target_probability(LOGITS, target))
    maps = LOGITS[:, :, None, None].expand(2, 3, 4, 5)
    by_pixel = target_probability(maps, target[:, None, None].expand(2, 4, 5), log=True)
    torch.testing.assert_close(by_pixel[:, 3, 4], target_probability(LOGITS, target, log=True))


def test_the_logarithm_survives_extreme_logits_in_bfloat16():
    logits = torch.tensor([[500.0, -500.0]], dtype=torch.bfloat16, requires_grad=True)
    log_p = target_probability(logits, torch.tensor([1]), log=True)
    log_p.sum().backward()
    assert log_p.item() == pytest.approx(-1000, rel=1e-2)
    assert logits.grad.isfinite().all()


def test_only_losses_that_ask_are_told_the_counts():
    class Asks(nn.Module):
        def set_class_counts(self, counts):
            self.counts = list(counts)

    both = nn.ModuleList([nn.CrossEntropyLoss(), Asks()])
    tell_class_counts(both, [3, 4], 5)
    assert both[1].counts == [3, 4]


def test_the_number_of_samples_follows_the_counts_where_it_is_known_and_asked_for():
    class Asks(nn.Module):
        def __init__(self):
            super().__init__()
            self.told = []

        def set_class_counts(self, counts):
            self.told.append(list(counts))

        def set_num_samples(self, num_samples):
            self.told.append(num_samples)

    loss = Asks()
    tell_class_counts(loss, [3, 4], 5)
    tell_class_counts(loss, [3, 4])
    assert loss.told == [[3, 4], 5, [3, 4]]


def test_only_a_loss_of_one_class_a_sample_is_refused_for_several_labels():
    class Compares(nn.Module):
        one_class_a_sample = True

    require_several_labels(nn.ModuleList([nn.BCEWithLogitsLoss(), nn.MSELoss()]))
    with pytest.raises(UserError, match=r"Compares compares classes.* take a loss of each label, such as"):
        require_several_labels(nn.ModuleList([nn.BCEWithLogitsLoss(), Compares()]))

import math

import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import GaussianCloudedLogitLoss


def test_equals_the_formula_entry_by_entry(logits, target, counts):
    loss = GaussianCloudedLogitLoss(0.7, 10.0, class_counts=counts, reduction="none")
    torch.manual_seed(3)
    losses = loss(logits, target)
    torch.manual_seed(3)
    noise = (torch.randn_like(logits) / 3).clamp(-1, 1).abs()
    rarity = [math.log(500) - math.log(max(n, 1)) for n in counts]
    expected = []
    for i, y in enumerate(target):
        clouded = [logits[i, c] - 10 * 0.7 * noise[i, c] * rarity[c] / max(rarity) for c in range(5)]
        expected.append(-torch.stack(clouded).log_softmax(0)[y])
    torch.testing.assert_close(losses, torch.stack(expected))


def test_the_most_frequent_class_has_no_noise_and_equal_counts_none_at_all(logits, target, counts):
    loss = GaussianCloudedLogitLoss(class_counts=[9] * 5)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))
    sure = torch.tensor([[0.0, -1e4, -1e4, -1e4, -1e4]])
    assert GaussianCloudedLogitLoss(class_counts=counts)(sure, torch.tensor([0])) == 0


def test_in_evaluation_it_is_cross_entropy(logits, target, counts):
    loss = GaussianCloudedLogitLoss(class_counts=counts).eval()
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))


@pytest.mark.parametrize("options", [{"noise": -1.0}, {"scale": 0.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="noise must not be negative"):
        GaussianCloudedLogitLoss(**options)


@pytest.mark.parametrize("gamma", [1.0, 0.5, 2.0])
def test_the_focal_factor_is_that_of_the_clouded_probability_and_a_constant(gamma, logits, target, counts):
    plain = GaussianCloudedLogitLoss(class_counts=counts, reduction="none")
    focal = GaussianCloudedLogitLoss(gamma=gamma, class_counts=counts, reduction="none")
    logits.requires_grad_()
    torch.manual_seed(3)
    losses = plain(logits, target)
    torch.manual_seed(3)
    focal_losses = focal(logits, target)
    factor = (1 - torch.exp(-losses.detach())) ** gamma
    torch.testing.assert_close(focal_losses, factor * losses)
    gradients = torch.autograd.grad(focal_losses.sum(), logits), torch.autograd.grad((factor * losses).sum(), logits)
    torch.testing.assert_close(*gradients)


def test_a_focal_factor_of_a_sample_that_is_right_has_no_nan():
    sure = torch.tensor([[200.0, 0.0], [0.0, 200.0]], requires_grad=True)
    loss = GaussianCloudedLogitLoss(gamma=0.5, class_counts=[9, 1])
    loss(sure, torch.tensor([0, 1])).backward()
    assert sure.grad.isfinite().all()


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma must not be negative"):
        GaussianCloudedLogitLoss(gamma=-1.0)

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from medbolt.noisy.losses.backward_correction import BackwardCorrectedLoss

MATRIX = [[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]]
LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def test_its_mean_over_the_noise_is_the_clean_loss():
    by_label = torch.stack(
        [BackwardCorrectedLoss(MATRIX, reduction="none")(LOGITS, torch.full((6,), y)) for y in range(3)], dim=1
    )
    mean = (torch.tensor(MATRIX)[TARGET] * by_label).sum(1)
    torch.testing.assert_close(mean, cross_entropy(LOGITS, TARGET, reduction="none"))


def test_is_cross_entropy_without_noise():
    torch.testing.assert_close(BackwardCorrectedLoss(torch.eye(3))(LOGITS, TARGET), cross_entropy(LOGITS, TARGET))


def test_is_bounded_below():
    transition = [[0.75, 0.25], [0.25, 0.75]]  # inverse rows (1.5, -0.5)
    loss = BackwardCorrectedLoss(transition, largest=10)(torch.tensor([[500.0, 0.0]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(-5)
    assert BackwardCorrectedLoss(transition).largest == pytest.approx(-math.log(1e-7))


def test_refuses_what_cannot_be_undone():
    with pytest.raises(ValueError, match="cannot be inverted"):
        BackwardCorrectedLoss([[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="largest"):
        BackwardCorrectedLoss(MATRIX, largest=0)
    with pytest.raises(ValueError, match="3 classes"):
        BackwardCorrectedLoss(MATRIX)(torch.zeros(1, 2), torch.tensor([0]))

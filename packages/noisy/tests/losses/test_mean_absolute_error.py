import torch
from torch import nn

from medbolt.noisy.losses.mean_absolute_error import MeanAbsoluteErrorLoss

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def test_is_half_the_absolute_difference_of_prediction_and_label():
    difference = LOGITS.softmax(1) - nn.functional.one_hot(TARGET, 3)
    torch.testing.assert_close(MeanAbsoluteErrorLoss(reduction="none")(LOGITS, TARGET), difference.abs().sum(1) / 2)


def test_is_symmetric_so_that_noise_cannot_move_its_minimum():
    losses = [MeanAbsoluteErrorLoss(reduction="none")(LOGITS, torch.full((6,), label)) for label in range(3)]
    torch.testing.assert_close(torch.stack(losses).sum(0), torch.full((6,), 2.0))


def test_soft_targets_are_the_mean_over_labels():
    soft = torch.tensor([[0.25, 0.75, 0.0]])
    hard = [MeanAbsoluteErrorLoss()(LOGITS[:1], torch.tensor([label])) for label in (0, 1)]
    torch.testing.assert_close(MeanAbsoluteErrorLoss()(LOGITS[:1], soft), 0.25 * hard[0] + 0.75 * hard[1])

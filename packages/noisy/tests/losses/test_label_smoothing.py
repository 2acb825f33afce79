import pytest
import torch
from torch.nn.functional import cross_entropy

from medbolt.noisy.losses.forward_correction import ForwardCorrectedLoss
from medbolt.noisy.losses.label_smoothing import LabelSmoothingLoss

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("target", [TARGET, LOGITS.softmax(1)], ids=["hard", "soft"])
def test_equals_torch(epsilon, target):
    expected = cross_entropy(LOGITS, target, label_smoothing=epsilon)
    torch.testing.assert_close(LabelSmoothingLoss(epsilon)(LOGITS, target), expected)


def test_bounds_the_confidence_as_forward_correction_does_not():
    """Both know of uniform noise; smoothing punishes certainty of a right label, correction does not."""
    sure, one = torch.tensor([[30.0, 0.0]]), torch.tensor([0])
    transition = [[0.95, 0.05], [0.05, 0.95]]
    assert LabelSmoothingLoss(0.1)(sure, one) > 1
    assert ForwardCorrectedLoss(transition)(sure, one) < 0.1


@pytest.mark.parametrize("epsilon", [-0.1, 1.1])
def test_refuses_arguments_out_of_range(epsilon):
    with pytest.raises(ValueError, match="epsilon"):
        LabelSmoothingLoss(epsilon)

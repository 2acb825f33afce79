import math

import pytest
import torch
from torch import nn

from medbolt.noisy.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss
from medbolt.noisy.losses.mean_absolute_error import MeanAbsoluteErrorLoss

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def test_equals_the_formula_sample_by_sample():
    loss = GeneralizedCrossEntropyLoss(q=0.7, reduction="none")(LOGITS, TARGET)
    for value, z, y in zip(loss, LOGITS.double(), TARGET, strict=True):
        p = z.exp() / z.exp().sum()
        assert value.item() == pytest.approx((1 - p[y].item() ** 0.7) / 0.7, rel=1e-5)


def test_is_cross_entropy_for_small_q():
    loss = GeneralizedCrossEntropyLoss(q=1e-5)(LOGITS, TARGET)
    torch.testing.assert_close(loss, nn.functional.cross_entropy(LOGITS, TARGET), rtol=1e-4, atol=0)


def test_is_mean_absolute_error_at_one():
    torch.testing.assert_close(
        GeneralizedCrossEntropyLoss(q=1)(LOGITS, TARGET), MeanAbsoluteErrorLoss()(LOGITS, TARGET)
    )


def test_truncation_gives_improbable_samples_a_constant_and_no_gradient():
    logits = torch.tensor([[0.0, 0.1], [0.1, 0.0]], requires_grad=True)
    losses = GeneralizedCrossEntropyLoss(q=0.7, truncation=0.5, reduction="none")(logits, torch.tensor([0, 0]))
    losses.sum().backward()
    assert losses[0].item() == pytest.approx((1 - 0.5**0.7) / 0.7)
    assert losses[1].item() == pytest.approx((1 - (1 / (1 + math.exp(-0.1))) ** 0.7) / 0.7, rel=1e-5)
    assert logits.grad[0].tolist() == [0, 0]
    assert (logits.grad[1] != 0).all()


def test_the_gradient_does_not_stop_where_public_code_clamps():
    logits = torch.tensor([[0.0, 20.0]], requires_grad=True)  # p = 2e-9
    GeneralizedCrossEntropyLoss(q=0.1)(logits, torch.tensor([0])).backward()
    assert logits.grad[0, 0].item() == pytest.approx(-math.exp(-2), rel=1e-3)


@pytest.mark.parametrize("options", [{"q": 0}, {"q": 1.1}, {"truncation": 0}, {"truncation": 1}])
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        GeneralizedCrossEntropyLoss(**options)

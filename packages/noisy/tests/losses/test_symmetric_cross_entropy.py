import math

import pytest
import torch
from torch import nn

from medbolt.noisy.losses.mean_absolute_error import MeanAbsoluteErrorLoss
from medbolt.noisy.losses.symmetric_cross_entropy import SymmetricCrossEntropyLoss, reverse_cross_entropy

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
SOFT = torch.tensor([[0.2, 0.5, 0.3], [0.0, 0.9, 0.1]])


def formula(z, q, alpha, beta, log_zero):
    """Compute the loss of one sample with a loop over classes in plain floats."""
    p = [math.exp(v) / sum(math.exp(w) for w in z) for v in z]
    forward = -sum(t * math.log(v) for t, v in zip(q, p, strict=True))
    reverse = -sum(v * (max(math.log(t), log_zero) if t > 0 else log_zero) for t, v in zip(q, p, strict=True))
    return alpha * forward + beta * reverse


@pytest.mark.parametrize("soft", [False, True])
def test_equals_the_formula_sample_by_sample(soft):
    target = SOFT if soft else TARGET
    loss = SymmetricCrossEntropyLoss(0.3, 2.0, log_zero=-5, reduction="none")(LOGITS[: len(target)], target)
    labels = target if soft else nn.functional.one_hot(target, 3)
    for value, z, q in zip(loss, LOGITS.tolist(), labels.tolist(), strict=False):
        assert value.item() == pytest.approx(formula(z, q, 0.3, 2.0, -5), rel=1e-5)


def test_limits_are_cross_entropy_and_scaled_mean_absolute_error():
    torch.testing.assert_close(
        SymmetricCrossEntropyLoss(1, 0)(LOGITS, TARGET), nn.functional.cross_entropy(LOGITS, TARGET)
    )
    torch.testing.assert_close(
        SymmetricCrossEntropyLoss(0, 1)(LOGITS, TARGET), -math.log(1e-4) * MeanAbsoluteErrorLoss()(LOGITS, TARGET)
    )


def test_the_reverse_term_keeps_its_gradient_where_public_code_clamps():
    logits = torch.tensor([[0.0, 20.0]], requires_grad=True)
    soft = torch.tensor([[1.0, 0.0]])
    reverse_cross_entropy(logits.log_softmax(1), soft, -4.0).sum().backward()
    assert logits.grad[0, 0] < 0


@pytest.mark.parametrize("options", [{"alpha": -1}, {"beta": -0.1}, {"log_zero": 0}])
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match="must"):
        SymmetricCrossEntropyLoss(**options)

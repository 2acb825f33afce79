import pytest
import torch
import torch.nn.functional as F
from torchvision.ops import sigmoid_focal_loss

from medbolt.longtail import FocalLoss


def test_equals_the_formula_sample_by_sample(logits, target):
    p = [z.softmax(0)[y] for z, y in zip(logits, target, strict=True)]
    expected = torch.stack([-((1 - p) ** 1.5) * p.log() for p in p])
    torch.testing.assert_close(FocalLoss(1.5, reduction="none")(logits, target), expected)


def test_sigmoid_form_equals_torchvision_s(logits, labels):
    expected = sigmoid_focal_loss(logits, labels, alpha=-1, gamma=2).sum(1)
    torch.testing.assert_close(FocalLoss(activation="sigmoid", reduction="none")(logits, labels), expected)


def test_without_focus_it_is_cross_entropy(logits, target, labels):
    torch.testing.assert_close(FocalLoss(0.0)(logits, target), F.cross_entropy(logits, target))
    bce = F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    torch.testing.assert_close(FocalLoss(0.0, "sigmoid", "sum")(logits, labels), bce)


def test_a_certain_sample_has_a_finite_gradient_below_gamma_one():
    logits = torch.tensor([[80.0, 0.0]], requires_grad=True)
    FocalLoss(0.3)(logits, torch.tensor([0])).backward()
    assert logits.grad.isfinite().all()


def test_a_negative_gamma_is_refused():
    with pytest.raises(ValueError, match="gamma must not be negative"):
        FocalLoss(-1.0)

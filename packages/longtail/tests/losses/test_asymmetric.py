import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import AsymmetricLoss, FocalLoss


@pytest.mark.parametrize("gamma", [3.0, 0.0])
@pytest.mark.parametrize("margin", [0.0, 0.05, 0.3])
def test_equals_the_formula_entry_by_entry(gamma, margin, logits, labels):
    expected = torch.zeros_like(logits)
    for i in range(12):
        for c in range(5):
            p = logits[i, c].sigmoid()
            shifted = (p - margin).clamp(min=0)
            present = -((1 - p) ** 1.5) * p.log()
            expected[i, c] = present if labels[i, c] else -(shifted**gamma) * (1 - shifted).log()
    loss = AsymmetricLoss(gamma, 1.5, margin, reduction="none")
    torch.testing.assert_close(loss(logits, labels), expected)


def test_is_binary_cross_entropy_without_focus_and_margin(logits, labels):
    loss = AsymmetricLoss(0.0, 0.0, 0.0, reduction="sum")
    torch.testing.assert_close(
        loss(logits, labels), F.binary_cross_entropy_with_logits(logits, labels, reduction="sum")
    )


def test_is_focal_loss_with_equal_exponents_and_no_margin(logits, labels):
    loss = AsymmetricLoss(2.0, 2.0, 0.0, reduction="sum")
    torch.testing.assert_close(loss(logits, labels), FocalLoss(2.0, "sigmoid", "sum")(logits, labels))


def test_very_easy_absent_labels_have_no_loss_and_no_gradient():
    logits = torch.tensor([[-5.0]], requires_grad=True)
    loss = AsymmetricLoss(margin=0.05)(logits, torch.zeros(1, 1))
    loss.backward()
    assert loss == 0
    assert logits.grad == 0


@pytest.mark.parametrize("options", [{"gamma_negative": -1.0}, {"margin": 1.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="must"):
        AsymmetricLoss(**options)

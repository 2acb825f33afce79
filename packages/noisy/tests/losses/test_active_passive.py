import math

import pytest
import torch

from medbolt.noisy.losses.active_passive import ActivePassiveLoss

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
ACTIVE = {
    "cross_entropy": lambda p: -math.log(p),
    "focal": lambda p: -((1 - p) ** 0.5) * math.log(p),
    "generalized_cross_entropy": lambda p: (1 - p**0.1) / 0.1,
}
PASSIVE = {"reverse_cross_entropy": lambda p: -math.log(1e-4) * (1 - p), "mean_absolute_error": lambda p: 1 - p}


@pytest.mark.parametrize("active", ACTIVE)
@pytest.mark.parametrize("passive", PASSIVE)
def test_equals_the_formula_sample_by_sample(active, passive):
    losses = ActivePassiveLoss(active, passive, alpha=2, beta=0.3, reduction="none")(LOGITS, TARGET)
    for value, z, y in zip(losses, LOGITS.tolist(), TARGET.tolist(), strict=True):
        p = [math.exp(v) / sum(math.exp(w) for w in z) for v in z]
        normalized = ACTIVE[active](p[y]) / sum(ACTIVE[active](v) for v in p)
        assert value.item() == pytest.approx(2 * normalized + 0.3 * PASSIVE[passive](p[y]), rel=1e-5)


@pytest.mark.parametrize("active", ACTIVE)
def test_the_active_loss_is_normalized_over_labels(active):
    loss = ActivePassiveLoss(active, beta=0, reduction="none")
    total = sum(loss(LOGITS, torch.full((6,), label)) for label in range(3))
    torch.testing.assert_close(total, torch.ones(6))


def test_the_focal_factor_has_a_gradient():
    logits = LOGITS.double().requires_grad_()
    loss = ActivePassiveLoss("focal", "mean_absolute_error")
    assert torch.autograd.gradcheck(lambda z: loss(z, TARGET), logits)


@pytest.mark.parametrize(
    "options",
    [{"active": "nce"}, {"passive": "mse"}, {"alpha": -1}, {"gamma": -1}, {"q": 0}, {"log_zero": 1}],
)
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        ActivePassiveLoss(**options)

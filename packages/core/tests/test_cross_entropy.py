import pytest
import torch
import torch.nn.functional as F
from torch.autograd import grad, gradcheck, gradgradcheck

from medbolt.core.cross_entropy import cross_entropy

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)
TARGET = torch.tensor([0, 3, 1, 1, 2, 0])
SHIFT = torch.randn(4, generator=GENERATOR, dtype=torch.float64)
SCALE = torch.rand(4, generator=GENERATOR, dtype=torch.float64) + 0.5
MARGIN = torch.rand(6, generator=GENERATOR, dtype=torch.float64)
ADJUSTMENTS = [
    {},
    {"shift": SHIFT},
    {"scale": SCALE},
    {"margin": MARGIN},
    {"shift": SHIFT, "scale": SCALE, "margin": MARGIN},
    {"shift": torch.randn(6, 4, generator=GENERATOR, dtype=torch.float64)},
]


def plain(logits, target, shift=0.0, scale=1.0, margin=None):
    adjusted = logits * scale + shift
    if margin is not None:
        adjusted = adjusted - F.one_hot(target, 4) * margin[:, None]
    return F.cross_entropy(adjusted, target, reduction="none")


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_value_and_gradients_are_torchs(adjustment):
    logits = LOGITS.clone().requires_grad_()
    weight = torch.rand(6, generator=GENERATOR)
    ours, theirs = cross_entropy(logits, TARGET, **adjustment), plain(logits, TARGET, **adjustment)
    torch.testing.assert_close(ours, theirs)
    gradient, expected = (grad((loss * weight).sum(), logits)[0] for loss in (ours, theirs))
    torch.testing.assert_close(gradient, expected)
    assert torch.equal(logits, LOGITS)


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_first_and_second_gradients_are_those_of_differences(adjustment):
    logits = LOGITS.clone().requires_grad_()
    assert gradcheck(lambda z: cross_entropy(z, TARGET, **adjustment), logits)
    assert gradgradcheck(lambda z: cross_entropy(z, TARGET, **adjustment), logits)


@pytest.mark.parametrize("name", ["shift", "scale", "margin"])
def test_an_adjustment_can_be_learned(name):
    adjustment = {"shift": SHIFT, "scale": SCALE, "margin": MARGIN}
    adjustment[name] = adjustment[name].clone().requires_grad_()
    ours, theirs = (f(LOGITS, TARGET, **adjustment).sum() for f in (cross_entropy, plain))
    torch.testing.assert_close(*(grad(loss, adjustment[name])[0] for loss in (ours, theirs)))


def test_the_graph_can_be_used_twice():
    logits = LOGITS.clone().requires_grad_()
    loss = cross_entropy(logits, TARGET, shift=SHIFT, scale=SCALE).sum()
    first = grad(loss, logits, retain_graph=True)[0]
    torch.testing.assert_close(grad(loss, logits)[0], first, rtol=0, atol=0)


def test_soft_targets():
    soft = torch.rand(6, 4, generator=GENERATOR).softmax(1)
    expected = F.cross_entropy(LOGITS * SCALE + SHIFT, soft.double(), reduction="none")
    torch.testing.assert_close(cross_entropy(LOGITS, soft, SHIFT, SCALE), expected)
    torch.testing.assert_close(cross_entropy(LOGITS, F.one_hot(TARGET, 4).double()), cross_entropy(LOGITS, TARGET))
    with pytest.raises(ValueError, match="margin needs class indices"):
        cross_entropy(LOGITS, soft, margin=MARGIN)


@pytest.mark.parametrize("adjustment", ADJUSTMENTS)
def test_the_mean_is_over_samples_whatever_they_weigh(adjustment):
    weight = torch.tensor([2.0, 1.0, 0.0, 5.0], dtype=torch.float64)
    losses = cross_entropy(LOGITS, TARGET, **adjustment)
    torch.testing.assert_close(cross_entropy(LOGITS, TARGET, **adjustment, weight=weight), losses * weight[TARGET])
    for given, expected in ((None, losses), (weight, losses * weight[TARGET])):
        of = {"target": TARGET, "weight": given, **adjustment}
        torch.testing.assert_close(cross_entropy(LOGITS, **of, reduction="mean"), expected.mean())
        torch.testing.assert_close(cross_entropy(LOGITS, **of, reduction="sum"), expected.sum())


def test_weights_of_soft_targets_and_of_maps():
    weight = torch.tensor([2.0, 1.0, 0.0, 5.0], dtype=torch.float64)
    soft = torch.rand(6, 4, generator=GENERATOR, dtype=torch.float64).softmax(1)
    expected = -(soft * weight * LOGITS.log_softmax(1)).sum(1)
    torch.testing.assert_close(cross_entropy(LOGITS, soft, weight=weight), expected)
    torch.testing.assert_close(cross_entropy(LOGITS, soft, weight=weight, reduction="mean"), expected.mean())
    maps, labels = LOGITS[:, :, None].expand(6, 4, 3).clone(), TARGET[:, None].expand(6, 3)
    expected = cross_entropy(LOGITS, TARGET, weight=weight, reduction="mean")
    torch.testing.assert_close(cross_entropy(maps, labels, weight=weight, reduction="mean"), expected)


def test_maps():
    maps = LOGITS[:, :, None, None].expand(6, 4, 2, 3).clone()
    labels = TARGET[:, None, None].expand(6, 2, 3)
    assert torch.equal(cross_entropy(maps, labels)[:, 1, 2], cross_entropy(LOGITS, TARGET))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_extreme_logits_of_any_precision_have_finite_values_and_gradients(dtype):
    logits = torch.tensor([[6e4, -6e4], [0.0, -torch.inf]], dtype=dtype, requires_grad=True)
    loss = cross_entropy(logits, torch.tensor([1, 0]))
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, torch.tensor([120000.0, 0.0]), rtol=1e-2, atol=0)
    loss.sum().backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[1.0, -1.0], [0.0, 0.0]], dtype=dtype))


def test_under_autocast_it_is_computed_in_float32():
    logits = LOGITS.bfloat16().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        loss = cross_entropy(logits, TARGET, shift=SHIFT.float())
    torch.testing.assert_close(loss, plain(logits.float(), TARGET, shift=SHIFT.float()))
    loss.sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_what_has_no_gradient_costs_none():
    assert not cross_entropy(LOGITS, TARGET).requires_grad

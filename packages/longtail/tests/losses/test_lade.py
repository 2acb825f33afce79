import math

import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import BalancedSoftmaxLoss, LADELoss


def bound(logits, target, counts, regularization):
    """Return the regularised Donsker-Varadhan bound, summed over classes by their frequency."""
    n = [max(count, 1) for count in counts]
    prior = [count / sum(n) for count in n]
    total = 0
    for c in range(5):
        own = [z[c] for z, y in zip(logits, target, strict=True) if y == c]
        first = sum(own) / len(own) if own else 0
        everyone = sum(z[c].exp() / (5 * prior[y]) for z, y in zip(logits, target.tolist(), strict=True))
        second = (everyone / len(logits)).log()
        total -= prior[c] * (first - second - regularization * second**2)
    return total


def test_equals_prior_cross_entropy_and_the_bound(logits, target, counts):
    expected = BalancedSoftmaxLoss(class_counts=counts)(logits, target) + 0.3 * bound(logits, target, counts, 0.2)
    torch.testing.assert_close(LADELoss(0.3, 0.2, class_counts=counts)(logits, target), expected)


@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_is_that_of_the_formula(logits, target, counts, soft):
    leaf = logits.detach().double().requires_grad_()
    ours = LADELoss(0.3, 0.2, class_counts=counts)(leaf, F.one_hot(target, 5).double() if soft else target)
    formula = BalancedSoftmaxLoss(class_counts=counts)(leaf, target) + 0.3 * bound(leaf, target, counts, 0.2)
    (expected,) = torch.autograd.grad(formula, leaf)
    (gradient,) = torch.autograd.grad(ours, leaf)
    torch.testing.assert_close(gradient, expected)


@pytest.mark.parametrize("soft", [False, True])
def test_the_second_derivative_is_that_of_the_formula(logits, target, counts, soft):
    logits, target = logits.double()[:6], target[:6]
    ours = LADELoss(0.3, 0.2, class_counts=counts)
    given = F.one_hot(target, 5).double() if soft else target

    def formula(z):
        return BalancedSoftmaxLoss(class_counts=counts)(z, target) + 0.3 * bound(z, target, counts, 0.2)

    expected = torch.autograd.functional.hessian(formula, logits)
    torch.testing.assert_close(torch.autograd.functional.hessian(lambda z: ours(z, given), logits), expected)


@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_the_bound_is_added_to_the_loss_of_each_sample(logits, target, counts, reduction):
    loss = LADELoss(class_counts=counts, reduction=reduction)(logits, target)
    mean = LADELoss(class_counts=counts)(logits, target)
    torch.testing.assert_close(loss.sum(), mean * len(logits))


def test_is_prior_cross_entropy_without_the_bound(logits, target, counts):
    loss = LADELoss(alpha=0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), BalancedSoftmaxLoss(class_counts=counts)(logits, target))


def test_the_bound_is_smallest_at_the_log_density_ratio_of_balanced_classes():
    """Discrete inputs whose densities are known, in a batch with the training frequencies: 90 to 30."""
    density = torch.tensor([[0.6, 0.3, 0.1], [0.1, 0.3, 0.6]])  # of three inputs, given each of two classes
    counts = [90, 30]
    x = torch.cat([torch.repeat_interleave(torch.arange(3), (d * n).round().long()) for d, n in zip(density, counts)])  # noqa: B905
    y = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    table = torch.zeros(3, 2, dtype=torch.float64, requires_grad=True)
    loss = LADELoss(alpha=1.0, regularization=0.1, class_counts=counts)
    optimizer = torch.optim.LBFGS([table], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-14)

    def closure():
        optimizer.zero_grad()
        value = loss(table[x], y) - BalancedSoftmaxLoss(class_counts=counts)(table[x], y)
        value.backward()
        return value

    optimizer.step(closure)
    ratio = (density / density.mean(0)).log().T.double()
    torch.testing.assert_close(table.detach(), ratio, atol=1e-4, rtol=0)


def test_the_example_s_number():
    loss = LADELoss(class_counts=[3, 1])(torch.zeros(4, 2), torch.tensor([0, 0, 0, 1]))
    assert math.isclose(loss.item(), (3 * math.log(4 / 3) + math.log(4)) / 4, rel_tol=1e-6)


def test_a_first_sample_far_below_the_others_is_as_exact_as_any():
    logits = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    logits[0] -= 1e5
    target = torch.tensor([0, 1, 2, 3, 0, 1])
    loss = LADELoss(class_counts=[8, 4, 2, 1])
    torch.testing.assert_close(loss(logits, target), loss(logits.double(), target).float(), rtol=1e-6, atol=0)
    turned = loss(logits.roll(2, 0), target.roll(2))
    torch.testing.assert_close(turned, loss(logits, target), rtol=1e-6, atol=0)

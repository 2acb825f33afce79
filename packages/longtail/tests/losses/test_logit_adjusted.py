import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import LogitAdjustedLoss

PRESENT = [500, 60, 9, 1, 3]


def test_equals_the_formula_sample_by_sample(logits, target):
    prior = torch.tensor(PRESENT).double() / sum(PRESENT)
    expected = []
    for z, y in zip(logits, target, strict=True):
        mass = [prior[c] ** 1.3 * z[c].exp() for c in range(5)]
        expected.append(-(mass[y] / sum(mass)).log())
    loss = LogitAdjustedLoss(1.3, class_counts=PRESENT, reduction="none")
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_is_prior_cross_entropy_at_one_and_cross_entropy_at_zero(logits, target, soft):
    prior = torch.tensor(PRESENT).double() / sum(PRESENT)
    for y in (target, soft):
        expected = F.cross_entropy(logits + (prior + 1e-9).log(), y)
        torch.testing.assert_close(LogitAdjustedLoss(class_counts=PRESENT)(logits, y), expected, rtol=1e-6, atol=0)
        loss = LogitAdjustedLoss(0.0, class_counts=PRESENT)
        torch.testing.assert_close(loss(logits, y), F.cross_entropy(logits, y))


def test_pushes_the_logits_of_rare_classes_up():
    """The sign: a rare target pulls more, and a frequent one less, than in cross entropy."""
    logits = torch.zeros(2, 2, requires_grad=True)
    LogitAdjustedLoss(class_counts=[9, 1], reduction="sum")(logits, torch.tensor([0, 1])).backward()
    torch.testing.assert_close(logits.grad, torch.tensor([[-0.1, 0.1], [0.9, -0.9]]))


def balanced_error(loss, seed):
    """Return the balanced error of a linear classifier of two overlapping Gaussians, 50 to 1."""
    generator = torch.Generator().manual_seed(seed)
    counts = [2000, 40]
    x = torch.cat([torch.randn(n, 2, generator=generator) + c * 1.5 for c, n in enumerate(counts)])
    y = torch.repeat_interleave(torch.arange(2), torch.tensor(counts))
    weight = torch.zeros(3, 2, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight], max_iter=100)

    def closure():
        optimizer.zero_grad()
        value = loss(x @ weight[:2] + weight[2], y)
        value.backward()
        return value

    optimizer.step(closure)
    test = torch.cat([torch.randn(4000, 2, generator=generator) + c * 1.5 for c in range(2)])
    wrong = (test @ weight[:2] + weight[2]).argmax(1) != torch.arange(2).repeat_interleave(4000)
    return wrong.float().mean().item()


@pytest.mark.parametrize("seed", range(3))
def test_beats_cross_entropy_in_balanced_error_and_comes_near_the_best(seed):
    best = 1 - torch.distributions.Normal(0, 1).cdf(torch.tensor(1.5 * 2**0.5 / 2)).item()
    adjusted = balanced_error(LogitAdjustedLoss(class_counts=[2000, 40]), seed)
    assert adjusted < balanced_error(F.cross_entropy, seed) - 0.1
    assert adjusted < best + 0.03

import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import SeesawLoss


def test_equals_the_formula_sample_by_sample(logits, target, counts):
    n = [max(count, 1) for count in counts]
    expected = []
    for z, y in zip(logits, target.tolist(), strict=True):
        sigma = z.softmax(0)
        mass = z[y].exp()
        for c in range(5):
            if c != y:
                mitigation = min(1, n[c] / n[y]) ** 0.8
                compensation = max(1, (sigma[c] / sigma[y].clamp(min=0.01)).item()) ** 2.0
                mass = mass + mitigation * compensation * z[c].exp()
        expected.append(mass.log() - z[y])
    loss = SeesawLoss(class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_without_factors_it_is_cross_entropy(logits, target, counts):
    loss = SeesawLoss(0.0, 0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))


def test_factors_are_constants_for_the_gradient(logits, target, counts):
    """The gradient is that of a softmax whose entries have the factors: it sums to zero, entry by entry p - y."""
    logits.requires_grad_()
    SeesawLoss(class_counts=counts, reduction="sum")(logits, target).backward()
    torch.testing.assert_close(logits.grad.sum(1), torch.zeros(12).double())
    with torch.no_grad():
        n = torch.tensor(counts).clamp(min=1).double()
        sigma = logits.softmax(1)
        own = sigma.gather(1, target[:, None]).clamp(min=0.01)
        factors = (n / n[target][:, None]).clamp(max=1) ** 0.8 * (sigma / own).clamp(min=1) ** 2
        p = (factors * logits.exp()) / (factors * logits.exp()).sum(1, keepdim=True)
    torch.testing.assert_close(logits.grad, p - F.one_hot(target, 5))


@pytest.mark.parametrize("options", [{"p": -1.0}, {"q": -1.0}])
def test_negative_exponents_are_refused(options):
    with pytest.raises(ValueError, match="p and q must not be negative"):
        SeesawLoss(**options)

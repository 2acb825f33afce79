import pytest
import torch
import torch.nn.functional as F

from medbolt.core import UserError
from medbolt.longtail import InfluenceBalancedLoss, class_weights


@pytest.fixture
def features():
    return torch.randn(12, 7, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


def test_equals_the_formula_sample_by_sample(logits, target, features, one_hot, counts):
    weights = class_weights(torch.tensor(counts).double())
    expected = []
    for z, y, h in zip(logits, target, features, strict=True):
        influence = (z.softmax(0) - one_hot(y)).abs().sum() * h.abs().sum()
        expected.append(20 * weights[y] / (influence + 0.01) * -z.log_softmax(0)[y])
    loss = InfluenceBalancedLoss(20.0, 0.01, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target, features), torch.stack(expected))
    torch.testing.assert_close(loss(logits, one_hot(target), features), torch.stack(expected))


def test_the_influence_is_the_norm_of_the_last_layer_s_gradient(logits, features):
    layer = torch.nn.Linear(7, 5).double()
    z = layer(features[:1])
    F.cross_entropy(z, torch.tensor([2])).backward()
    loss = InfluenceBalancedLoss(epsilon=1e-12, class_counts=[1] * 5)
    expected = F.cross_entropy(z, torch.tensor([2])) / layer.weight.grad.abs().sum()
    torch.testing.assert_close(loss(z, torch.tensor([2]), features[:1]), expected)
    without = F.cross_entropy(z, torch.tensor([2])) / layer.bias.grad.abs().sum()
    torch.testing.assert_close(loss(z, torch.tensor([2])), without)


def test_the_factor_is_a_constant_for_the_gradient(logits, target, features, counts):
    logits.requires_grad_()
    features.requires_grad_()
    loss = InfluenceBalancedLoss(class_counts=counts, reduction="none")
    losses = loss(logits, target, features)
    losses.sum().backward()
    nll = F.cross_entropy(logits, target, reduction="none").detach()
    p = logits.detach().softmax(1)
    torch.testing.assert_close(logits.grad, (losses.detach() / nll)[:, None] * (p - F.one_hot(target, 5)))
    assert features.grad is None


def test_features_of_another_shape_are_named(logits, target, counts):
    with pytest.raises(UserError, match=r"features of shape \(12, 3, 4, 4\) for 12 samples"):
        InfluenceBalancedLoss(class_counts=counts)(logits, target, torch.zeros(12, 3, 4, 4))

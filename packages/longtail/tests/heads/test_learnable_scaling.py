import pytest
import torch

from medbolt.longtail import LearnableScalingHead


@pytest.mark.parametrize("options", [{}, {"scale_bias": True}, {"train_weights": True}])
def test_starts_as_the_layer_it_was_made_from(features, linear, options):
    head = LearnableScalingHead(6, 4, **options)
    head.take(linear)
    torch.testing.assert_close(head(features), linear(features))


def test_equals_the_formula_and_leaves_the_bias_alone(features, linear):
    head = LearnableScalingHead.from_linear(linear)
    head.scale.data = torch.tensor([2.0, 0.5, 1.0, -1.0]).double()
    expected = [
        [float(f * (w @ x) + b) for f, w, b in zip(head.scale, linear.weight, linear.bias, strict=True)]
        for x in features
    ]
    torch.testing.assert_close(head(features), torch.tensor(expected).double())
    head.scale_bias = True
    torch.testing.assert_close(head(features), head.scale * linear(features))


def test_only_the_factors_learn_unless_told_otherwise(linear):
    assert [name for name, _ in LearnableScalingHead.from_linear(linear).named_parameters()] == ["scale"]
    head = LearnableScalingHead(6, 4, train_weights=True)
    head.take(linear)
    assert {name for name, _ in head.named_parameters()} == {"scale", "weight", "bias"}
    assert torch.equal(head.weight, linear.weight)
    assert head.weight is not linear.weight


def test_raises_the_recall_of_a_class_that_is_rarely_predicted():
    """A frozen layer with a short weight for the rare class; balanced batches stretch it."""
    torch.manual_seed(0)
    target = torch.arange(2).repeat(200)
    features = torch.nn.functional.one_hot(target, 2).float() + 0.3 * torch.randn(400, 2)
    linear = torch.nn.Linear(2, 2, bias=False)
    linear.weight.data = torch.tensor([[4.0, 0.0], [0.0, 0.4]])
    head = LearnableScalingHead.from_linear(linear)
    rare = target == 1
    assert (head(features[rare]).argmax(1) == 1).float().mean() < 0.85
    optimizer = torch.optim.SGD(head.parameters(), 10.0)
    for _ in range(100):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(head(features), target).backward()
        optimizer.step()
    assert (head(features[rare]).argmax(1) == 1).float().mean() > 0.95
    assert torch.equal(head.weight, linear.weight)


def test_half_precision_and_zeros(finite_in_half_precision):
    finite_in_half_precision(LearnableScalingHead(6, 4))

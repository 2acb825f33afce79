from copy import deepcopy
from functools import partial

import pytest
import torch
from torch import nn

from medbolt.core import TimmClassifier, UserError
from medbolt.longtail import CosineHead, ExpertsClassifier


@pytest.fixture
def image():
    return torch.randn(6, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def one_by_one(experts, image):
    """What each expert says, by running its own copies in a network of its own."""
    network, rows = experts.network, []
    for k in range(len(experts.weights)):
        shared = network.relu(network.body.copies[k](network.stem(image)))
        rows.append(network.head.copies[k](shared))
    return torch.stack(rows)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_each_expert_says_what_it_says_alone(small, image, number, training):
    experts = ExpertsClassifier(small(), number, ["body"]).double().train(training)
    expected = one_by_one(deepcopy(experts), image.double())
    assert len({tuple(rows.flatten().tolist()) for rows in expected}) == number
    torch.testing.assert_close(deepcopy(experts).each(image.double()), expected)
    torch.testing.assert_close(experts(image.double()), expected.mean(0))


def test_one_expert_is_the_network_itself(small, image):
    network = small()
    experts = ExpertsClassifier(small(), 1, ["body"])
    torch.testing.assert_close(experts(image), network(image), rtol=0, atol=0)
    assert sum(p.numel() for p in experts.parameters()) == sum(p.numel() for p in network.parameters())


def test_the_first_expert_keeps_the_weights_and_the_others_are_drawn_as_torch_draws(small):
    before, state = small(), torch.get_rng_state()
    experts = ExpertsClassifier(small(), 3, ["body"])
    assert torch.equal(torch.get_rng_state(), state)  # small() seeds alike, no more is drawn from torch's generator
    copies = experts.network.body.copies
    assert torch.equal(copies[0][1].weight, before.body[1].weight)
    assert not torch.equal(copies[1][1].weight, before.body[1].weight)
    assert not torch.equal(copies[1][1].weight, copies[2][1].weight)
    assert copies[1][1].weight.abs().max() <= 1 / 4  # uniform within 1 / sqrt(16)
    again, other = ExpertsClassifier(small(), 3, ["body"]), ExpertsClassifier(small(), 3, ["body"], seed=1)
    assert torch.equal(again.network.body.copies[1][1].weight, copies[1][1].weight)
    assert not torch.equal(other.network.body.copies[1][1].weight, copies[1][1].weight)


def test_only_the_heads_of_a_pretrained_network_are_drawn_anew(small):
    network = small()
    network.body[2].running_mean += 3
    experts = ExpertsClassifier(network, 2, ["body"], redraw="head").network
    for one, other in zip(*(copy.state_dict().values() for copy in experts.body.copies), strict=True):
        assert torch.equal(one, other)
    assert experts.body.copies[1][2].running_mean[0] == 3
    assert not torch.equal(experts.head.copies[0].weight, experts.head.copies[1].weight)


def test_heads_can_be_made_otherwise(small, image):
    heads = ExpertsClassifier(small(), 3, ["body"], make_head=partial(CosineHead, scale=9.0)).network.head.copies
    assert [type(head) for head in heads] == [CosineHead] * 3
    assert [head.scale for head in heads] == [9.0] * 3
    again = ExpertsClassifier(small(), 3, ["body"], make_head=CosineHead).network.head.copies
    assert torch.equal(again[2].weight, heads[2].weight)
    assert not torch.equal(heads[0].weight, heads[1].weight)


def test_weights_of_experts_are_used_and_not_saved(small, image):
    experts = ExpertsClassifier(small(), 3, ["body"]).eval()
    experts.weights.copy_(torch.tensor([0.5, 0.0, 2.0]))
    one, _, three = experts.each(image)
    torch.testing.assert_close(experts(image), 0.5 * one + 2 * three)
    assert "weights" not in experts.state_dict()


def test_with_shares_each_expert_sees_images_of_its_own(small, image):
    experts = ExpertsClassifier(small(), 2, ["body"]).eval()
    first, second = image[:3], image[3:]
    expected = 0.25 * experts.each(first)[0] + 0.75 * experts.each(second)[1]
    torch.testing.assert_close(experts(image, torch.tensor([0.25, 0.75])), expected)
    torch.testing.assert_close(experts(first), experts.each(first).mean(0))  # and all of them the next time


def test_modes_and_frozen_weights_stay(small):
    network = small()
    network.body.eval()
    network.body[1].weight.requires_grad_(False)
    experts = ExpertsClassifier(network, 2, ["body"], make_head=CosineHead)
    for body in experts.network.body.copies:
        assert not body[2].training
        assert not body[1].weight.requires_grad
        assert body[1].bias.requires_grad
    assert experts.network.stem[2].training
    assert not ExpertsClassifier(small().eval(), 2, ["body"], make_head=CosineHead).network.head.copies[1].training


@pytest.mark.parametrize("parts", [["features.layer4"], ["features.layer4", "features.layer3"], []])
def test_networks_of_timm_learn_under_bfloat16(parts):
    experts = ExpertsClassifier(TimmClassifier("resnet10t", 5, small_images=False), 3, parts)
    with torch.autocast("cpu", torch.bfloat16):
        logits = experts(torch.randn(2, 3, 32, 32))
        assert experts.each(torch.randn(1, 3, 64, 64)).shape == (3, 1, 5)
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    logits.square().sum().backward()
    for name, p in experts.named_parameters():
        assert p.grad is not None, name
        assert p.grad.isfinite().all()


def test_a_state_is_restored(small, image):
    experts, other = (ExpertsClassifier(small(), 2, ["body"], seed=seed).eval() for seed in (0, 1))
    other.load_state_dict(experts.state_dict())
    assert torch.equal(other.each(image), experts.each(image))


def test_mistakes_are_named(small):
    with pytest.raises(UserError, match="Small has no part parts='layer4'; it has 'stem', 'body', 'relu', 'head'"):
        ExpertsClassifier(small(), 3, ["layer4"])
    with pytest.raises(UserError, match="Small has no linear layer 'fc'"):
        ExpertsClassifier(small(), 3, ["body"], head="fc")
    with pytest.raises(UserError, match=r"parts='body.1.weight' is a single parameter"):
        ExpertsClassifier(small(), 3, ["body.1.weight"])
    with pytest.raises(ValueError, match="must lie beside one another"):
        ExpertsClassifier(small(), 3, ["body", "body.1"])
    with pytest.raises(ValueError, match="number must be positive"):
        ExpertsClassifier(small(), 0, ["body"])

    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(8))

    network = small()
    network.body.append(Scale())
    with pytest.raises(UserError, match=r"layer 'body.3' \(Scale\) has weights .* or set redraw to 'head'"):
        ExpertsClassifier(network, 2, ["body"])
    ExpertsClassifier(network, 2, ["body"], redraw="head")


def test_a_failure_leaves_the_network_as_it_was(small):
    network = small()
    with pytest.raises(UserError):
        ExpertsClassifier(network, 2, ["body", "layer4"])
    assert isinstance(network.body, nn.Sequential)
    assert isinstance(network.head, nn.Linear)

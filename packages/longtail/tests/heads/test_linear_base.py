from functools import partial

import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.longtail import DisAlignHead, LearnableScalingHead, TauNormalizedHead

HEADS = [DisAlignHead, LearnableScalingHead, TauNormalizedHead]
each_head = pytest.mark.parametrize("kind", HEADS)


@each_head
def test_the_layer_beneath_is_a_copy_that_nothing_trains(kind, linear):
    head = kind.from_linear(linear)
    before = linear.weight.detach().clone()
    head.requires_grad_(True)
    assert not {"weight", "bias"} & {name for name, _ in head.named_parameters()}
    with torch.no_grad():
        linear.weight.zero_()
    assert torch.equal(head.weight, before)
    assert head.weight.dtype == torch.float64


@each_head
def test_a_first_stage_s_checkpoint_loads_into_the_head(kind, linear):
    head = kind(6, 4).double()
    incompatible = head.load_state_dict(linear.state_dict(), strict=False)
    assert not incompatible.unexpected_keys
    assert torch.equal(head.weight, linear.weight)
    assert torch.equal(head.bias, linear.bias)


@each_head
def test_a_layer_without_bias(kind, features):
    layer = nn.Linear(6, 4, bias=False).double()
    head = kind.from_linear(layer)
    assert head.bias is None
    assert set(layer.state_dict()) <= set(head.state_dict())
    assert "bias" not in head.state_dict()
    assert head(features).shape == (7, 4)


@each_head
def test_a_frozen_layer_is_not_drawn_anew(kind, linear):
    head = kind.from_linear(linear)
    with pytest.raises(UserError, match=f"{kind.__name__} lies over a trained layer that it does not train"):
        head.reset_parameters()
    assert torch.equal(head.weight, linear.weight)


@pytest.mark.parametrize("bias", [True, False])
def test_a_trained_one_is_and_its_scales_are_one_again(bias):
    head = partial(LearnableScalingHead, train_weights=True)(6, 4)
    head.take(nn.Linear(6, 4, bias=bias))
    before = head.weight.detach().clone()
    with torch.no_grad():
        head.scale *= 3
    head.reset_parameters()
    assert not torch.equal(head.weight, before)
    assert head.weight.abs().max() <= 6**-0.5
    assert torch.equal(head.scale, torch.ones(4))
    assert (head.bias is not None) == bias

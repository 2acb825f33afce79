import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.longtail.stages.parts import draw_anew, find_part, is_within


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(3))


def test_layers_and_parameters_are_found_by_their_dotted_name():
    network = nn.Sequential(nn.Sequential(nn.Linear(2, 3)), Own())
    assert find_part(network, "0.0", "trainable") is network[0][0]
    assert find_part(network, "1.scale", "trainable") is network[1].scale
    assert find_part(network, "", "trainable") is network


@pytest.mark.parametrize("name", ["forward", "0.in_features", "2", "0..weight"])
def test_other_attributes_are_no_parts(name):
    with pytest.raises(UserError, match="Sequential has no part trainable="):
        find_part(nn.Sequential(nn.Linear(2, 3)), name, "trainable")


def test_a_name_that_begins_alike_is_not_within():
    assert is_within("a.b", "a.b")
    assert not is_within("a.b", "a.b.c")
    assert not is_within("ab", "a")


def test_weights_are_those_torch_draws_and_leave_its_generator_alone():
    part = nn.Sequential(nn.Linear(50, 60), nn.BatchNorm1d(60))
    part[1].running_mean.fill_(3)
    before = torch.get_rng_state()
    draw_anew(part, "head", seed=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(part[1].running_mean, torch.zeros(60))
    assert float(part[0].weight.detach().abs().max()) == pytest.approx(50**-0.5, rel=0.01)


def test_a_layer_that_cannot_be_drawn_is_named():
    with pytest.raises(UserError, match=r"layer 'head.1' \(Own\) has weights of its own but no reset_parameters"):
        draw_anew(nn.Sequential(nn.Linear(2, 3), Own()), "head", seed=0)

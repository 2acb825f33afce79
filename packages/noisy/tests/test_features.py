import pytest
import torch
from torch import nn

from medbolt.core import TimmClassifier, UserError
from medbolt.noisy.features import classifier_head, inputs_of


def test_finds_the_last_linear_layer_or_the_one_named():
    network = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    assert classifier_head(network, None, "SSR") is network[2]
    assert classifier_head(network, "0", "SSR") is network[0]
    head = classifier_head(TimmClassifier("resnet10t", 3), None, "SSR")
    assert head.out_features == 3


@pytest.mark.parametrize("path", [None, "head", "0"])
def test_says_what_there_is(path):
    with pytest.raises(UserError, match="no linear layer head="):
        classifier_head(nn.Sequential(nn.Flatten()), path, "SSR")


def test_collects_inputs_only_inside_the_block():
    layer = nn.Linear(2, 2)
    with inputs_of(layer) as found:
        layer(torch.ones(3, 2))
    layer(torch.zeros(1, 2))
    assert [x.shape[0] for x in found] == [3]


@pytest.mark.parametrize("is_warm", [False, True])
def test_collects_inputs_inside_a_compiled_network(is_warm):
    layer = nn.Linear(2, 2)
    network = torch.compile(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), layer), backend="eager")
    if is_warm:
        network(torch.zeros(3, 2))
    with inputs_of(layer) as found:
        network(torch.zeros(3, 2))
    network(torch.zeros(3, 2))
    assert [x.shape[0] for x in found] == [3]

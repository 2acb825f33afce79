import pytest
import torch
from torch import nn

from medbolt.noisy.memorizing.averaged_network import AveragedNetwork


def test_follows_weights_and_buffers_by_the_formula():
    torch.manual_seed(0)
    source = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    average = AveragedNetwork(source)
    expected = {name: value.clone().double() for name, value in source.state_dict().items()}
    for decay in (0.9, 0.5, 0.0, 0.99):
        source(torch.randn(8, 3)).sum()  # moves the statistics of batch norm
        with torch.no_grad():
            source[0].weight.add_(torch.randn(4, 3))
        average.update(decay)
        for name, value in source.state_dict().items():
            counts = not value.is_floating_point()
            expected[name] = value.double() if counts else decay * expected[name] + (1 - decay) * value.double()
    for name, value in average.network.state_dict().items():
        torch.testing.assert_close(value.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert expected["1.running_mean"].ne(0).any()


def test_is_in_evaluation_mode_and_without_gradient():
    source = nn.Sequential(nn.Dropout(0.5), nn.Linear(2, 2))
    average = AveragedNetwork(source)
    assert source.training
    assert not average.network[0].training
    assert not any(p.requires_grad for p in average.network.parameters())


def test_takes_on_the_precision_of_the_source():
    source = nn.Linear(2, 2)
    average = AveragedNetwork(source)
    source.double()
    average.match()
    assert average.network(torch.zeros(1, 2, dtype=torch.float64)).dtype == torch.float64


def test_hooks_of_others_are_not_copied():
    source, calls = nn.Linear(2, 2), []
    source.register_forward_hook(lambda *_: calls.append(1))
    AveragedNetwork(source).network(torch.zeros(1, 2))
    assert calls == []
    source(torch.zeros(1, 2))
    assert calls == [1]


def test_stays_where_the_source_stays():
    source = nn.Linear(2, 2)
    average = AveragedNetwork(source)
    average.update(0.9)
    assert float(average.network.weight.detach()[0, 0]) == pytest.approx(float(source.weight.detach()[0, 0]))

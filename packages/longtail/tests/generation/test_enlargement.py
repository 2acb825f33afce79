import pytest
import torch
from torch import nn

from medbolt.core import UserError
from medbolt.longtail.generation.enlargement import Enlargement


def test_layers_between_see_more_rows_and_whoever_calls_the_network_does_not():
    network, seen = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 3)), []
    network.register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    network[1].register_forward_hook(lambda _, inputs, output: seen.append(len(output)))
    inputs = torch.randn(5, 2)
    plain = network(inputs)
    enlargement = Enlargement("I", network[0], network, lambda rows: 2 * rows[3:])
    found = network(inputs)
    assert seen == [5, 5, 7, 5]
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(enlargement.logits, network[2]((2 * network[0](inputs)[3:5]).relu()))
    enlargement.remove()
    assert network(inputs).shape == (5, 3)
    assert seen[-2:] == [5, 5]


def test_without_more_rows_nothing_happens():
    network = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 3))
    enlargement = Enlargement("I", network[0], network, lambda rows: None)
    network(torch.zeros(3, 2))
    assert enlargement.logits is None
    assert enlargement.number == 0


@pytest.mark.parametrize(
    ("last", "found"),
    [(lambda x: x[:3], "3 rows"), (lambda x: x.repeat(2, 1), "16 rows"), (lambda x: {"x": x}, "dict")],
)
def test_a_network_that_gives_something_else_is_refused(last, found):
    class Other(nn.Sequential):
        def forward(self, x):
            return last(super().forward(x))

    network = Other(nn.Linear(2, 4), nn.Linear(4, 3))
    Enlargement("I", network[0], network, lambda rows: rows)
    with pytest.raises(UserError, match=f"I made a batch one of 8, but the network gave .*{found}"):
        network(torch.zeros(4, 2))

import pytest
import torch

from medbolt.longtail.experts.stability import stable_weights


def similarity(a, first, second):
    """The objective, image by image."""
    w, total = [x / sum(a) for x in a], 0.0
    for z, v in zip(first, second, strict=True):
        one, two = (sum(wk * zk for wk, zk in zip(w, rows, strict=True)).softmax(0) for rows in (z, v))
        total += float(one @ two / (one.norm() * two.norm()))
    return total / len(first)


def test_weights_are_those_of_the_greatest_similarity():
    generator = torch.Generator().manual_seed(3)
    first = torch.randn(12, 2, 3, generator=generator, dtype=torch.float64) * 3
    second = first + torch.tensor([0.8, 1.0])[:, None] * torch.randn(12, 2, 3, generator=generator, dtype=torch.float64)
    found = stable_weights(first, second, 1000, 1.0, 0.0)
    shares = [i / 100 for i in range(1, 100)]
    best = max(shares, key=lambda share: similarity([share, 1 - share], first, second))
    assert 0.1 < best < 0.9
    assert float(found[0]) == pytest.approx(best, abs=0.01)


def test_it_goes_uphill_from_equal_weights_and_stops_at_the_least():
    z = torch.randn(50, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    noise = torch.tensor([0.1, 2.0, 2.0])[:, None] * torch.randn(50, 3, 4, dtype=torch.float64)
    torch.testing.assert_close(stable_weights(z, z + noise, 0, 1.0, 0.05), torch.full((3,), 1 / 3).double())
    found = stable_weights(z, z + noise, 5000, 1.0, 0.05)
    assert found[0] > 0.8
    assert 0.03 < found.min() < 0.05
    assert float(stable_weights(z[:, :1], z[:, :1], 5, 1.0, 0.05)) == 1.0

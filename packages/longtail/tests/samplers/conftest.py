"""Long-tailed targets, with one class a sample and with several labels."""

import pytest
import torch

SIZES = [4000, 900, 90, 10]


@pytest.fixture
def sizes():
    return torch.tensor(SIZES, dtype=torch.float64)


@pytest.fixture
def targets():
    """(5000,) class indices, mixed."""
    order = torch.randperm(sum(SIZES), generator=torch.Generator().manual_seed(0))
    return torch.repeat_interleave(torch.arange(4), torch.tensor(SIZES))[order]


@pytest.fixture
def labels():
    """(5000, 4) labels: a sample in five has none, one in ten of class 0 has class 2 too, nobody has class 3."""
    labels = torch.zeros(5000, 4)
    labels[:3000, 0] = 1
    labels[:300, 2] = 1
    labels[3000:4000, 1] = 1
    return labels


@pytest.fixture
def assert_frequencies():
    """Return a check that counts are within three standard deviations of what q expects."""

    def check(drawn, q):
        q, number = q / q.sum(), drawn.sum()
        deviation = (number * q * (1 - q)).sqrt()
        assert ((drawn - number * q).abs() <= 3 * deviation + 1e-9).all(), (drawn, number * q, deviation)

    return check

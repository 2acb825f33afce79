"""A batch of a long-tailed problem, and loops to compare with."""

import pytest
import torch

COUNTS = [500, 60, 9, 1, 0]


@pytest.fixture
def counts():
    """Training samples of five classes; the last has none."""
    return list(COUNTS)


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(12, len(COUNTS), generator=generator, dtype=torch.float64) * 3


@pytest.fixture
def target():
    return torch.tensor([0, 1, 2, 3, 0, 0, 1, 0, 2, 3, 3, 0])


@pytest.fixture
def soft():
    """Probabilities, no two rows alike."""
    generator = torch.Generator().manual_seed(1)
    return torch.rand(12, len(COUNTS), generator=generator, dtype=torch.float64).softmax(1)


@pytest.fixture
def labels():
    """Multi-label targets: rows with none, one and all labels, and a class without any."""
    labels = (torch.rand(12, len(COUNTS), generator=torch.Generator().manual_seed(2)) < 0.4).double()
    labels[0], labels[1] = 0, 1
    labels[1, 4] = 0
    labels[:, 4] = 0
    return labels


@pytest.fixture
def one_hot():
    def convert(target):
        return torch.nn.functional.one_hot(target, len(COUNTS)).double()

    return convert

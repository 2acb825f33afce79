"""A problem whose truth is known: separable classes, 40 % of whose training labels are wrong."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

CLASSES, RATE = 4, 0.4


@pytest.fixture(scope="session")
def trained_accuracy() -> Callable[[nn.Module], float]:
    """Return a function that trains a small network with a loss, and tells its accuracy on clean test labels."""
    generator = torch.Generator().manual_seed(0)
    centres = 3 * torch.randn(CLASSES, 8, generator=generator)
    clean = torch.arange(1200) % CLASSES
    x = centres[clean] + torch.randn(1200, 8, generator=generator)
    wrong = (clean + torch.randint(1, CLASSES, (1200,), generator=generator)) % CLASSES
    noisy = torch.where(torch.rand(1200, generator=generator) < RATE, wrong, clean)

    def train(criterion: nn.Module, epochs: int = 150, start: nn.Module | None = None) -> float:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(8, 128), nn.ReLU(), nn.Linear(128, CLASSES))
        for loss, count in ((start, epochs // 3), (criterion, epochs)):
            optimizer = torch.optim.Adam(network.parameters(), 0.02)
            for epoch in range(count if loss is not None else 0):
                if hasattr(loss, "set_epoch"):
                    loss.set_epoch(epoch)
                optimizer.zero_grad()
                loss(network(x[:600]), noisy[:600]).backward()
                optimizer.step()
        return float((network(x[600:]).argmax(1) == clean[600:]).float().mean())

    return train


@pytest.fixture(scope="session")
def cross_entropy_accuracy(trained_accuracy: Callable[[nn.Module], float]) -> float:
    """Accuracy that cross entropy reaches."""
    return trained_accuracy(nn.CrossEntropyLoss())

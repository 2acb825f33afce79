import pytest
import torch
from torch import Tensor


@pytest.fixture
def targets() -> Tensor:
    """Balanced labels of five classes."""
    return torch.arange(10_000) % 5


@pytest.fixture
def pictures() -> Tensor:
    """Sixty small pictures."""
    return torch.randint(0, 256, (60, 3, 20, 24), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)

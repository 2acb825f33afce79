"""Features and a linear layer to put heads over."""

import pytest
import torch
from torch import nn


@pytest.fixture
def features():
    return torch.randn(7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def linear():
    torch.manual_seed(1)
    return nn.Linear(6, 4).double()


@pytest.fixture
def finite_in_half_precision():
    """Check a head on features of a half-precision network: float32 logits, finite gradients, also of zeros."""

    def check(head):
        for dtype in (torch.bfloat16, torch.float16):
            features = (torch.randn(5, 6) * 100).to(dtype)
            features[0] = 0
            features.requires_grad_()
            with torch.autocast("cpu", torch.bfloat16):
                logits = head(features)
            assert logits.dtype == torch.float32
            logits.square().mean().backward()
            assert logits.isfinite().all()
            assert features.grad.isfinite().all()
            assert all(p.grad.isfinite().all() for p in head.parameters() if p.grad is not None)
        assert head.bfloat16()(torch.randn(1, 6, dtype=torch.bfloat16)).isfinite().all()
        assert head(torch.zeros(0, 6, dtype=torch.bfloat16)).shape == (0, 4)

    return check

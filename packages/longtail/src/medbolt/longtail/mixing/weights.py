"""Weights of mixtures, drawn by torch's CPU generator, which RandomState seeds for each batch."""

import torch
from torch import Tensor


def drawn_weights(first: float, second: float, number: int) -> Tensor:
    """Draw from Beta(first, second), (number,), in float32.

    Example:
        >>> drawn_weights(0.2, 1.0, 3).shape
        torch.Size([3])
    """
    # not of the default dtype, which a precision may have lowered
    parameters = torch.tensor([first, second], dtype=torch.float32)
    return torch.distributions.Beta(parameters[0], parameters[1]).sample((number,))

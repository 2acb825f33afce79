"""Log-probabilities of classes, also where one logit tells two classes apart."""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from medbolt.noisy.losses.targets import log_probability


def log_probabilities(logits: Tensor) -> Tensor:
    """Return (B, C) log-probabilities in float32, or float64 where the logits are; C is 2 for one logit a sample.

    Args:
        logits: (B, C) for C classes, or (B,) and (B, 1) for the second of two classes, of any precision.

    Example:
        >>> log_probabilities(torch.zeros(1)).exp()
        tensor([[0.5000, 0.5000]])
    """
    if logits.ndim > 1 and logits.shape[1] > 1:
        return log_probability(logits)
    one = logits.reshape(len(logits)).to(torch.promote_types(logits.dtype, torch.float32))
    return torch.stack([logsigmoid(-one), logsigmoid(one)], dim=1)

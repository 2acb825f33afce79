"""How many classes there are, and going between logits, distributions over classes and a criterion's targets."""

import torch
from lightning.pytorch import Callback
from torch import Tensor
from torch.nn.functional import one_hot

from medbolt.core.errors import UserError
from medbolt.noisy.selection.probabilities import log_probabilities


def log_probability_of(callback: Callback, logits: Tensor, num_classes: int) -> Tensor:
    """Return (B, C) log-probabilities in float32, or float64 where the logits are.

    Args:
        callback: Who asks, for the message.
        logits: (B, C), or (B,) and (B, 1) for the second of two classes.
        num_classes: C.

    Raises:
        UserError: if the logits are of other classes.
    """
    columns = (2 if logits.shape[1] == 1 else logits.shape[1]) if logits.ndim == 2 else 2
    if logits.ndim > 2 or columns != num_classes:
        raise UserError(
            f"{type(callback).__name__} remembers {num_classes} classes of each sample, but the criterion was given "
            f"logits of shape {tuple(logits.shape)}; it needs one prediction an image, and num_classes as many as that "
            "has."
        )
    return log_probabilities(logits)


def as_logits(log_p: Tensor, like: Tensor) -> Tensor:
    """Return log-probabilities, (B, C), as logits of the form that the criterion was given.

    Example:
        >>> as_logits(torch.tensor([[0.2, 0.8]]).log(), like=torch.zeros(1, 1)).sigmoid()
        tensor([[0.8000]])
    """
    if is_one_logit(like):
        return (log_p[:, 1] - log_p[:, 0]).reshape(-1, *like.shape[1:])
    return log_p


def as_distribution(target: Tensor, num_classes: int) -> Tensor:
    """Return targets of any kind as (B, C) float probabilities.

    Example:
        >>> as_distribution(torch.tensor([1]), 3), as_distribution(torch.tensor([[0.25]]), 2)
        (tensor([[0., 1., 0.]]), tensor([[0.7500, 0.2500]]))
    """
    if not target.is_floating_point():
        return one_hot(target.flatten(), num_classes).float()
    if target.numel() == len(target):
        second = target.flatten().float()
        return torch.stack([1 - second, second], dim=1)
    return target.float()


def as_target(distribution: Tensor, logits: Tensor) -> Tensor:
    """Return a distribution, (B, C), as a target of the form that goes with the logits."""
    return distribution[:, 1].reshape(-1, *logits.shape[1:]) if is_one_logit(logits) else distribution


def is_one_logit(logits: Tensor) -> bool:
    """Tell whether one logit tells two classes apart."""
    return logits.ndim == 1 or logits.shape[1] == 1

"""What the losses share: log-probabilities, and picking the target's value out of one value a class."""

import torch
from torch import Tensor

from medbolt.core.cross_entropy import require_classes


def log_probability(logits: Tensor) -> Tensor:
    """Return the log-probabilities of the classes, in float32, or float64 where the logits are.

    Args:
        logits: (B, C, ...) float of any precision.

    Returns:
        (B, C, ...) float32 or float64.

    Raises:
        UserError: if there is one column.

    Example:
        >>> log_probability(torch.zeros(1, 2, dtype=torch.bfloat16))
        tensor([[-0.6931, -0.6931]])
    """
    require_classes(logits)
    return logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))


def expected(values: Tensor, target: Tensor) -> Tensor:
    r"""Return the value of the target's class; for soft targets the mean over classes, :math:`\sum_c t_{ic} v_{ic}`.

    Args:
        values: (B, C, ...) float, a value for each class.
        target: (B, ...) int64 class indices, or (B, C, ...) float probabilities.

    Returns:
        (B, ...), of the precision of ``values``.

    Example:
        >>> (
        ...     expected(torch.tensor([[5.0, 7.0]]), torch.tensor([1])),
        ...     expected(torch.tensor([[5.0, 7.0]]), torch.tensor([[0.5, 0.5]])),
        ... )
        (tensor([7.]), tensor([6.]))
    """
    if target.is_floating_point():
        return (target.to(values) * values).sum(1)
    return values.gather(1, target.unsqueeze(1)).squeeze(1)

"""How much a sample of each class counts."""

import math
from typing import Literal, assert_never

from torch import Tensor

Weighting = Literal["inverse", "sqrt", "effective", "log"]


def class_weights(counts: Tensor, weighting: Weighting = "inverse", beta: float = 0.9999) -> Tensor:
    r"""Return a weight a class whose mean over the classes with samples is one; classes without any get zero.

    .. math::
        w_c \propto \tfrac{1}{n_c}\ \text{(inverse)},\quad \tfrac{1}{\sqrt{n_c}}\ \text{(sqrt)},\quad
        \tfrac{1-\beta}{1-\beta^{n_c}}\ \text{(effective)},\quad 1 - \log\tfrac{n_c}{n_{\max}}\ \text{(log)}

    Args:
        counts: (C,) float training samples of each class.
        weighting: The rule. ``"effective"`` is the inverse effective number of samples (arXiv 1901.05555), which goes
            from no weighting (beta 0) to ``"inverse"`` (beta towards 1); ``"log"`` is MONICA's weighted softmax.
        beta: Of the effective number, in [0, 1).

    Returns:
        (C,) float.

    Raises:
        ValueError: if ``beta`` is outside [0, 1).

    Example:
        >>> class_weights(torch.tensor([90.0, 10.0, 0.0]))
        tensor([0.2000, 1.8000, 0.0000])
    """
    n = counts.clamp(min=1)
    match weighting:
        case "inverse":
            weights = 1 / n
        case "sqrt":
            weights = n.rsqrt()
        case "effective":
            check_beta(beta)
            weights = -1 / (n * (math.log(beta) if beta else -math.inf)).expm1()
        case "log":
            weights = 1 - (n / n.max()).log()
        case _:
            assert_never(weighting)
    weights = weights * (counts > 0)
    return weights * ((counts > 0).sum() / weights.sum())


def check_beta(beta: float) -> None:
    """Refuse a beta for which there is no effective number.

    Raises:
        ValueError: if ``beta`` is outside [0, 1).

    Example:
        >>> check_beta(0.999)
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")

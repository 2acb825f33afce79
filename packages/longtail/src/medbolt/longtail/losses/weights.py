"""How much a sample of each class counts."""

import math
from typing import Literal, assert_never

import torch
from torch import Tensor

Weighting = Literal["inverse", "sqrt", "effective", "log"]


def class_weights(counts: Tensor, weighting: Weighting = "inverse", beta: float = 0.9999, power: float = 1.0) -> Tensor:
    r"""Return a weight a class whose mean over the classes with samples is one; classes without any get zero.

    .. math::
        w_c \propto \tfrac{1}{n_c^\rho}\ \text{(inverse)},\quad \tfrac{1}{\sqrt{n_c}}\ \text{(sqrt)},\quad
        \tfrac{1-\beta}{1-\beta^{n_c}}\ \text{(effective)},\quad 1 - \log\tfrac{n_c}{n_{\max}}\ \text{(log)}

    Args:
        counts: (C,) float training samples of each class.
        weighting: The rule. ``"effective"`` is the inverse effective number of samples (arXiv 1901.05555), which goes
            from no weighting (beta 0) to ``"inverse"`` (beta towards 1); ``"log"`` is MONICA's weighted softmax.
        beta: Of the effective number, in [0, 1).
        power: Exponent :math:`\rho` of ``"inverse"``, not negative: DisAlign's generalised re-weighting
            (arXiv 2103.16370) takes 1.2; 0 weighs all classes alike.

    Returns:
        (C,) float.

    Raises:
        ValueError: if ``beta`` is outside [0, 1) or ``power`` negative.

    Example:
        >>> class_weights(torch.tensor([90.0, 10.0, 0.0]))
        tensor([0.2000, 1.8000, 0.0000])
    """
    n = counts.clamp(min=1)
    match weighting:
        case "inverse":
            check_power(power)
            # of the largest count, for powers of 1/n may be too small for float32
            weights = (n.max() / n) ** power
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


def sample_weights(target: Tensor, weights: Tensor) -> Tensor:
    """Return how much each sample counts, (B,): by its class, or by the mean over its labels.

    A sample without labels, such as a healthy one of multi-label data, counts as one.

    Args:
        target: (B,) int64 class indices, (B, C) probabilities or labels, or (B,) float for two classes.
        weights: (C,) float, one a class.

    Example:
        >>> sample_weights(torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]]), torch.tensor([0.5, 1.5]))
        tensor([1.0000, 1.5000, 1.0000])
    """
    if target.ndim == 1 and not target.is_floating_point():
        return weights[target]
    target = target.to(weights)
    if target.ndim == 1:
        return weights[0] + (weights[1] - weights[0]) * target
    mass = target.sum(1)
    weight = (target * weights).sum(1)  # no product of matrices, which autocast would round
    return torch.where(mass > 0, weight / mass.where(mass > 0, 1), 1.0)


def check_power(power: float) -> None:
    """Refuse a power that would weigh frequent classes more.

    Raises:
        ValueError: if ``power`` is negative.

    Example:
        >>> check_power(1.2)
    """
    if power < 0:
        raise ValueError(f"power must not be negative, got {power}")


def check_beta(beta: float) -> None:
    """Refuse a beta for which there is no effective number.

    Raises:
        ValueError: if ``beta`` is outside [0, 1).

    Example:
        >>> check_beta(0.999)
    """
    if not 0 <= beta < 1:
        raise ValueError(f"beta must be in [0, 1), got {beta}")

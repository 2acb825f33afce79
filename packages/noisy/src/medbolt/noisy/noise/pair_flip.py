"""Pair-flip noise: each class is taken for one other."""

import torch
from torch import Tensor

from medbolt.noisy.noise.base import check_rate
from medbolt.noisy.noise.class_conditional import ClassConditionalNoise


class PairFlipNoise(ClassConditionalNoise):
    r"""Turn a label into the next one, the last into the first.

    .. math:: T_{ii} = 1 - \rho, \qquad T_{i,\,i + 1 \bmod K} = \rho

    Identifiable for rates below 1/2.

    Args:
        rate: Probability :math:`\rho` of a wrong label, in [0, 1].

    Raises:
        ValueError: if ``rate`` is outside [0, 1].

    Source: Han et al., arXiv 1804.06872.

    Example:
        >>> PairFlipNoise(0.4).transition(3)
        tensor([[0.6000, 0.4000, 0.0000],
                [0.0000, 0.6000, 0.4000],
                [0.4000, 0.0000, 0.6000]], dtype=torch.float64)
    """

    def __init__(self, rate: float) -> None:
        self.rate = check_rate(rate)

    def transition(self, num_classes: int) -> Tensor:
        """Return the transition matrix, (K, K) float64."""
        identity = torch.eye(num_classes, dtype=torch.float64)
        return (1 - self.rate) * identity + self.rate * identity.roll(1, dims=1)

    def max_rate(self, num_classes: int) -> float:
        """Return the rate from which no class is identifiable."""
        return 0.5

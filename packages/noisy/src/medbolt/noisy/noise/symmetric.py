"""Symmetric noise: every wrong label is as probable as the next."""

import torch
from torch import Tensor

from medbolt.noisy.noise.base import check_rate
from medbolt.noisy.noise.class_conditional import ClassConditionalNoise


class SymmetricNoise(ClassConditionalNoise):
    r"""Turn a label into any other one with equal probability.

    .. math:: T_{ii} = 1 - \rho, \qquad T_{ij} = \frac{\rho}{K - 1}

    Identifiable for rates below (K - 1) / K.

    Args:
        rate: Probability :math:`\rho` of a wrong label, in [0, 1].
        include_self: Draw the new label from all K classes, as DivideMix's data do: the rate of wrong labels is then
            :math:`\rho (K - 1) / K`.

    Raises:
        ValueError: if ``rate`` is outside [0, 1].

    Source: symmetric noise as in LNMBench, arXiv 2512.09315.

    Example:
        >>> SymmetricNoise(0.4).transition(3)
        tensor([[0.6000, 0.2000, 0.2000],
                [0.2000, 0.6000, 0.2000],
                [0.2000, 0.2000, 0.6000]], dtype=torch.float64)
        >>> SymmetricNoise(0.5)(torch.zeros(8, dtype=torch.int64), num_classes=3, seed=1)
        tensor([...])
    """

    def __init__(self, rate: float, include_self: bool = False) -> None:
        self.rate, self.include_self = check_rate(rate), include_self

    def transition(self, num_classes: int) -> Tensor:
        """Return the transition matrix, (K, K) float64."""
        wrong = self.rate / (num_classes if self.include_self else num_classes - 1)
        matrix = torch.full((num_classes, num_classes), wrong, dtype=torch.float64)
        return matrix.fill_diagonal_(1 - wrong * (num_classes - 1))

    def max_rate(self, num_classes: int) -> float:
        """Return the rate from which no class is identifiable."""
        return 1.0 if self.include_self else super().max_rate(num_classes)

"""Noise of graders: wrong grades are near ones."""

import torch
from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.noisy.noise.base import check_rate
from medbolt.noisy.noise.class_conditional import ClassConditionalNoise


class OrdinalNoise(ClassConditionalNoise):
    r"""Turn a grade into a near one.

    .. math:: T_{ii} = 1 - \rho_i, \qquad T_{ij} \propto b^{[j > i]}\, e^{-(|i - j| - 1) / \kappa}

    With ``reach`` 0 only adjacent grades are confused; the first and the last grade have one neighbour, which gets all.
    Identifiable for rates below 1/2 then, and below somewhat more with a wider reach (:meth:`max_rate`).

    Args:
        rate: Probability :math:`\rho` of a wrong grade, in [0, 1]: one for all grades, or one for each.
        reach: How slowly grades further away become rarer, :math:`\kappa` in grades; 0 for neighbours only.
        upward: Weight b of over-grading relative to under-grading.

    Raises:
        ValueError: if a rate is outside [0, 1], ``reach`` negative or ``upward`` not positive.
        UserError: at the call, if the data have another number of grades than there are rates.

    Example:
        >>> OrdinalNoise(0.4).transition(3)
        tensor([[0.6000, 0.4000, 0.0000],
                [0.2000, 0.6000, 0.2000],
                [0.0000, 0.4000, 0.6000]], dtype=torch.float64)
    """

    def __init__(self, rate: float | list[float], reach: float = 0.0, upward: float = 1.0) -> None:
        self.rates = [check_rate(one) for one in (rate if isinstance(rate, list) else [rate])]
        if reach < 0:
            raise ValueError(f"reach must not be negative, got {reach}")
        if upward <= 0:
            raise ValueError(f"upward must be positive, got {upward}")
        self.reach, self.upward = reach, upward

    def transition(self, num_classes: int) -> Tensor:
        """Return the transition matrix, (K, K) float64."""
        if len(self.rates) not in (1, num_classes):
            raise UserError(f"there are {len(self.rates)} noise rates for {num_classes} grades; give one or one each.")
        rates = torch.tensor(self.rates, dtype=torch.float64).expand(num_classes)
        return rates.unsqueeze(1) * self._wrong(num_classes) + torch.diag(1 - rates)

    def max_rate(self, num_classes: int) -> float:
        """Return the rate from which some grade looks like another as often: 1/2 if only neighbours are confused."""
        return 1 / (1 + float(self._wrong(num_classes).max()))

    def _wrong(self, num_classes: int) -> Tensor:
        """Return how a wrong grade is distributed, (K, K) float64."""
        grades = torch.arange(num_classes, dtype=torch.float64)
        beyond = (grades - grades.unsqueeze(1)).abs() - 1  # -1 on the diagonal
        near = (-beyond / self.reach).exp() if self.reach else (beyond == 0).double()
        near = (near * torch.where(grades > grades.unsqueeze(1), self.upward, 1.0)).fill_diagonal_(0)
        return near / near.sum(1, keepdim=True)

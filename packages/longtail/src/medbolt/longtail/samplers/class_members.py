"""Which samples each class has, and draws from them."""

import torch
from torch import Tensor

from medbolt.core.errors import UserError


class ClassMembers:
    """The samples of each class, from which to draw class by class.

    With multi-label targets a sample belongs to each of its labels, and the samples without any label, healthy ones
    mostly, form one more class, so that they are not lost.

    Args:
        targets: (N,) int64 class indices or (N, C) float or int labels (present above 0.5).

    Raises:
        UserError: if there are no samples.

    Example:
        >>> members = ClassMembers(torch.tensor([1, 0, 1]))
        >>> members.sizes
        tensor([1, 2])
        >>> members.draw(torch.tensor([1.0, 0.0]), 3, torch.Generator())
        tensor([1, 1, 1])
    """

    def __init__(self, targets: Tensor) -> None:
        if len(targets) == 0:
            raise UserError("there are no training samples to draw from; give the training split some.")
        if targets.ndim == 1:
            self.sizes = torch.bincount(targets)
            self._members = targets.argsort(stable=True)
        else:
            present = targets > 0.5
            columns = torch.cat([present, ~present.any(1, keepdim=True)], 1).T
            self.sizes = columns.sum(1)
            self._members = columns.nonzero()[:, 1]
        self._starts = self.sizes.cumsum(0) - self.sizes

    def draw(self, probability: Tensor, number: int, generator: torch.Generator) -> Tensor:
        """Draw samples with replacement: a class by its probability, then any of its samples.

        Args:
            probability: (C,) float, one a class, not normalised; zero for empty classes.
            number: How many.
            generator: Where the randomness comes from.

        Returns:
            (number,) int64 positions.
        """
        cumulative = probability.double().cumsum(0)
        places = torch.rand(number, generator=generator, dtype=torch.float64) * cumulative[-1]
        drawn = torch.searchsorted(cumulative, places, right=True).clamp_(max=len(cumulative) - 1)
        sizes = self.sizes[drawn]
        within = (torch.rand(number, generator=generator, dtype=torch.float64) * sizes).long()
        return self._members[self._starts[drawn] + within.minimum(sizes - 1)]

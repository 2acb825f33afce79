"""A running mean of a network's weights, for targets that are steadier than the network."""

from collections.abc import Iterator
from itertools import chain

import torch
from torch import Tensor, nn

from medbolt.noisy.selection.peer import copied


class AveragedNetwork:
    """Keep a copy of a network whose weights and buffers are running means of it, in evaluation mode.

    It is no part of the module: nothing trains it, moves it or saves it but who holds it.

    Args:
        source: The network to follow.

    Raises:
        UserError: if the network cannot be copied.

    Example:
        >>> source = nn.Linear(1, 1)
        >>> average = AveragedNetwork(source)
        >>> source.weight.data += 1
        >>> average.update(decay=0.75)
        >>> float(source.weight - average.network.weight)
        0.75
    """

    def __init__(self, source: nn.Module) -> None:
        self.source = source
        self.network = copied(source).eval().requires_grad_(False)

    def match(self) -> None:
        """Take on the device and the precision of the source, which are settled after the set-up."""
        for average, value in self._pairs():
            average.data = average.data.to(value)

    @torch.no_grad()
    def update(self, decay: float) -> None:
        """Move towards the source: ``decay`` 0 copies it. What is counted in integers is copied always."""
        for average, value in self._pairs():
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    def _pairs(self) -> Iterator[tuple[Tensor, Tensor]]:
        mine = chain(self.network.parameters(), self.network.buffers())
        return zip(mine, chain(self.source.parameters(), self.source.buffers()), strict=True)

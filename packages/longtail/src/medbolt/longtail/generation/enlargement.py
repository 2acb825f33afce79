"""Rows that a batch has between a layer and the network's output only."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from medbolt.core.errors import UserError


class Enlargement:
    """Add rows to what a layer gives, and take them off the network's output again.

    So the layers between see a larger batch, and whoever calls the network sees none of it.

    Args:
        owner: Who enlarges, for messages.
        layer: The layer, inside of the network.
        network: The network, whose output has one row of logits a sample.
        more: Returns the rows to add to the layer's output, (G, ...), or ``None``.

    Attributes:
        number: Rows that were added, G, since :meth:`reset`.
        logits: What the network gave for them, (G, ...); ``None`` while it has not.

    Example:
        >>> network = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 3))
        >>> enlargement = Enlargement("I", network[0], network, lambda rows: rows[:1])
        >>> network(torch.zeros(4, 2)).shape, enlargement.logits.shape
        (torch.Size([4, 3]), torch.Size([1, 3]))
        >>> enlargement.remove()
    """

    def __init__(
        self, owner: str, layer: nn.Module, network: nn.Module, more: Callable[[Tensor], Tensor | None]
    ) -> None:
        self.owner, self.more = owner, more
        self.number, self._total = 0, 0
        self.logits: Tensor | None = None
        # on the network before all other hooks: they see the batch's rows only
        self._handles = [
            layer.register_forward_hook(self._enlarge),
            network.register_forward_hook(self._cut, prepend=True),
        ]

    def reset(self) -> None:
        """Forget the rows of a batch."""
        self.number, self.logits = 0, None

    def logits_like(self, logits: Tensor) -> Tensor:
        """Return what the network gave for the added rows in the shape that the batch's logits have, (G, ...).

        Raises:
            UserError: if they are not of the same size.
        """
        assert self.logits is not None
        if self.logits[0].numel() != logits[0].numel():
            raise UserError(
                f"{self.owner} needs logits as the network gives them, but it gave {tuple(self.logits.shape[1:])} a "
                f"sample and the criterion got {tuple(logits.shape[1:])}; name the network whose output the criterion "
                "is given, e.g. network='net'."
            )
        return self.logits.reshape(self.number, *logits.shape[1:])

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self.reset()

    def _enlarge(self, layer: nn.Module, inputs: tuple[object, ...], rows: Tensor) -> Tensor | None:
        added = self.more(rows)
        if added is None:
            return None
        self.number, self._total, self.logits = len(added), len(rows) + len(added), None
        return torch.cat([rows, added])

    def _cut(self, network: nn.Module, inputs: tuple[object, ...], output: Tensor) -> Tensor | None:
        if self.number == 0 or self.logits is not None:
            return None
        if not isinstance(output, Tensor) or len(output) != self._total:
            found = f"{len(output)} rows" if isinstance(output, Tensor) else f"a {type(output).__name__}"
            raise UserError(
                f"{self.owner} made a batch one of {self._total}, but the network gave {found}; name a network that "
                "gives one row of logits a sample."
            )
        kept, self.logits = output.tensor_split([len(output) - self.number])
        return kept

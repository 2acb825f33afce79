"""Learning rates of their own for some parameters, whatever optimizer and scheduler there are."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle

from medbolt.core.errors import UserError
from medbolt.longtail.stages.parts import find_part


class LearningRateFactors:
    r"""Let optimizers move some parameters by a factor of what they would.

    .. math:: w \leftarrow w + f\, \Delta w, \qquad \Delta w\ \text{the optimizer's step}

    For an optimizer whose step is proportional to its learning rate, weight decay included (SGD with momentum, Adam,
    AdamW and most others; not Adafactor's relative steps, nor L-BFGS with a line search), that is a learning rate of
    :math:`f` times the group's at every moment of any schedule. Parameter groups would say the same only to a module
    that makes them itself: a scheduler counts the groups when it is made.

    Args:
        network: The network.
        factors: By dotted part of the network, a layer or a parameter, its factor. Of two that overlap the later
            holds.

    Raises:
        UserError: if there is no such part, or nothing of it trains.

    State, cost: none; a copy of these parameters during each step.

    Example:
        >>> network = nn.Linear(1, 1)
        >>> optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
        >>> LearningRateFactors(network, {"bias": 0.1}).attach([optimizer])
        >>> before = network.bias.item()
        >>> network(torch.zeros(1)).backward()  # the gradient of the bias is 1
        >>> _ = optimizer.step()
        >>> round(before - network.bias.item(), 4)
        0.1
    """

    def __init__(self, network: nn.Module, factors: Mapping[str, float]) -> None:
        self._factors: dict[nn.Parameter, float] = {}
        self._before: dict[nn.Parameter, Tensor] = {}
        self._handles: list[RemovableHandle] = []
        for name, factor in factors.items():
            part = find_part(network, name, "learning_rate_factors")
            parameters = [part] if isinstance(part, nn.Parameter) else part.parameters()
            trained = {p: factor for p in parameters if p.requires_grad}
            if not trained:
                raise UserError(
                    f"learning_rate_factors has '{name}' of {type(network).__name__}, but nothing of it trains; name a "
                    "part of what is trainable."
                )
            self._factors |= trained

    def attach(self, optimizers: Iterable[Optimizer]) -> None:
        """Change the steps of these optimizers from now on.

        Raises:
            UserError: if none of them holds a parameter that has a factor.
        """
        held: set[nn.Parameter] = set()
        for optimizer in optimizers:
            held |= self._held(optimizer)
            self._handles += [
                optimizer.register_step_pre_hook(self._remember),
                optimizer.register_step_post_hook(self._shorten),
            ]
        if self._factors.keys() - held:
            raise UserError(
                "learning_rate_factors names parameters that no optimizer holds; give the optimizer self.parameters() "
                "in configure_optimizers."
            )

    def remove(self) -> None:
        """Leave the optimizers' steps alone again."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def _held(self, optimizer: Optimizer) -> set[nn.Parameter]:
        return {p for group in optimizer.param_groups for p in group["params"] if p in self._factors}

    def _remember(self, optimizer: Optimizer, *arguments: Any) -> None:
        self._before = {p: p.detach().clone() for p in self._held(optimizer)}

    @torch.no_grad()
    def _shorten(self, optimizer: Optimizer, *arguments: Any) -> None:
        for p, before in self._before.items():
            p.copy_(before.lerp(p, self._factors[p]))
        self._before = {}

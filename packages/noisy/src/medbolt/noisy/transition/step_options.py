"""Other optimizer options for some parameters, for the length of each optimizer step only."""

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.utils.hooks import RemovableHandle


class StepOptions:
    """Step chosen parameters without weight decay, and with another learning rate.

    A parameter group of their own would be the usual way. But the optimizer is the user's: learning rate schedulers
    have counted its groups when they were made, and checkpoints store its state by group. So the parameters get a group
    while ``optimizer.step()`` runs and go back to their place after it. Schedulers, checkpoints, gradient scaling and
    clipping see the groups as the user made them; momentum is kept by parameter and does not notice.

    Args:
        optimizers: The optimizers that hold the parameters.
        parameters: The chosen parameters.
        lr: Factor on their learning rate. It may be changed between steps.
        rest_lr: Factor on the learning rate of all other parameters. It may be changed between steps.

    Example:
        >>> import torch
        >>> chosen, other = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
        >>> chosen.grad = other.grad = torch.zeros(1)
        >>> optimizer = torch.optim.SGD([chosen, other], lr=1.0, weight_decay=0.5)
        >>> options = StepOptions([optimizer], [chosen])
        >>> optimizer.step()
        >>> chosen.item(), other.item(), len(optimizer.param_groups)
        (1.0, 0.5, 1)
    """

    def __init__(
        self,
        optimizers: Sequence[Optimizer],
        parameters: Iterable[nn.Parameter],
        lr: float = 1.0,
        rest_lr: float = 1.0,
    ) -> None:
        self.lr, self.rest_lr = lr, rest_lr
        self._chosen = {id(parameter) for parameter in parameters}
        self._undo = ExitStack()
        self._handles: list[RemovableHandle] = []
        for optimizer in optimizers:
            self._handles.append(optimizer.register_step_pre_hook(self._before))
            self._handles.append(optimizer.register_step_post_hook(self._after))

    def remove(self) -> None:
        """Leave the optimizers as they were."""
        self._undo.close()
        for handle in self._handles:
            handle.remove()

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._undo.close()
        for group in list(optimizer.param_groups):
            chosen = [p for p in group["params"] if id(p) in self._chosen]
            if chosen and (self.lr != self.rest_lr or group.get("weight_decay", 0) != 0):
                self._set(group, "params", [p for p in group["params"] if id(p) not in self._chosen])
                own = {**group, "params": chosen, "lr": group["lr"] * self.lr, "weight_decay": 0.0}
                optimizer.param_groups.append(own)
                self._undo.callback(optimizer.param_groups.pop)
            if self.rest_lr != 1:
                self._set(group, "lr", group["lr"] * self.rest_lr)

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._undo.close()

    def _set(self, group: dict[str, Any], key: str, value: Any) -> None:
        self._undo.callback(group.__setitem__, key, group[key])
        group[key] = value

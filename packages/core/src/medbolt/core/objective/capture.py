"""Hooks that remember what the network was given and what a layer put out."""

from operator import attrgetter
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor, nn

from medbolt.core.errors import UserError, listed
from medbolt.core.objective.compiled import forget_traces
from medbolt.core.objective.step import Capture


class Captured:
    """Keep a :class:`~medbolt.core.objective.step.Capture` up to date by forward hooks.

    Args:
        capture: Where to write.
        module: The module that trains.
        network: Attribute of the network, or ``"self"``. A missing one is an error only for methods that use it.
        features: Dotted attribute of a layer, which must exist.
    """

    def __init__(self, capture: Capture, module: LightningModule, network: str, features: str | None) -> None:
        self.capture = capture
        self._handles: list[Any] = []
        target = module if network == "self" else _submodule(module, network)
        if target is not None:
            self._handles.append(target.register_forward_pre_hook(self._remember_inputs))
        if features is not None:
            layer = _submodule(module, features)
            if layer is None:
                names = [name for name, _ in module.named_modules() if name and name.count(".") < 2]
                raise UserError(f"{type(module).__name__} has no layer features='{features}'; it has {listed(names)}.")
            self._handles.append(layer.register_forward_hook(self._remember_features))
            forget_traces(module)

    def start(self) -> None:
        """Begin to remember: a training batch runs."""
        self.capture.running = True

    def stop(self) -> None:
        """Forget what the hooks saw, and remember nothing until the next training batch."""
        self.capture.running, self.capture.inputs, self.capture.features = False, None, None

    def remove(self) -> None:
        """Take the hooks off."""
        for handle in self._handles:
            handle.remove()
        self.stop()

    def _remember_inputs(self, network: nn.Module, inputs: tuple[Any, ...]) -> None:
        if self.capture.running:
            self.capture.inputs = inputs

    def _remember_features(self, layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        if self.capture.running:
            self.capture.features = output


def _submodule(module: nn.Module, path: str) -> nn.Module | None:
    try:
        found = attrgetter(path)(module)
    except AttributeError:
        return None
    return found if isinstance(found, nn.Module) else None

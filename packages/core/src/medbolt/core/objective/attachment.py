"""A submodule that trains with somebody else's module and leaves no trace in its weights."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import nn

from medbolt.core.errors import UserError


class Attachment:
    """Register a submodule on a module, hidden from the module's ``state_dict``.

    It is a registered submodule, so optimizers, devices, precision and DistributedDataParallel treat it as part of the
    module. Checkpoints of the module hold the user's own parameters only and load into the plain module.

    Args:
        module: The module that trains.
        name: Attribute name, not yet taken.
        submodule: What is attached.
    """

    def __init__(self, module: LightningModule, name: str, submodule: nn.Module) -> None:
        if hasattr(module, name):
            raise UserError(
                f"{type(module).__name__} already has an attribute '{name}', where a method would put its own; of two "
                "methods that attach it take one, or rename the module's attribute."
            )
        self.module, self.name, self.submodule = module, name, submodule
        module.add_module(name, submodule)
        # torch marks the hooks with an attribute, which bound methods cannot carry
        self._handles = [
            module.register_state_dict_post_hook(lambda module, *arguments: self._hide(*arguments)),
            module.register_load_state_dict_post_hook(lambda module, incompatible: self._excuse(incompatible)),
        ]

    def remove(self) -> None:
        """Take the submodule out again."""
        for handle in self._handles:
            handle.remove()
        if self.name in self.module._modules:
            delattr(self.module, self.name)

    def _hide(self, state_dict: dict[str, Any], prefix: str, metadata: dict[str, Any]) -> None:
        for key in [key for key in state_dict if key.startswith(f"{prefix}{self.name}.")]:
            del state_dict[key]

    def _excuse(self, incompatible: Any) -> None:
        # at any depth, for callbacks that average weights wrap the module
        hidden = tuple(f".{self.name}.{key}" for key in self.submodule.state_dict())
        for key in [key for key in incompatible.missing_keys if f".{key}".endswith(hidden)]:
            incompatible.missing_keys.remove(key)

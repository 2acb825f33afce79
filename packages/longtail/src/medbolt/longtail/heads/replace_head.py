"""Put a head on a network: once and for all, or by a callback on any LightningModule."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import nn

from medbolt.core.errors import UserError, listed
from medbolt.core.objective.averaging import refuse_earlier_averaging
from medbolt.longtail.heads.linear_base import LinearBasedHead

HeadCallable = Callable[[int, int], nn.Module]
"""Makes a head from the length of the features and the number of classes; a head class of this package is one."""


def replace_head(module: nn.Module, head: HeadCallable, path: str = "model.head") -> nn.Module:
    """Put a new head in the place of a layer, and return it.

    It comes to the device of the layer. A head over a trained linear layer takes the layer's weights; in the place of
    another such head, those of the layer beneath it, without what that head learnt on top.

    Args:
        module: Any module: a network, a LightningModule.
        head: Makes the head from the length of the features and the number of classes, which the layer tells.
        path: Dotted attribute of the layer, a linear one or one of this package's heads.

    Raises:
        UserError: if there is no such layer, or the head lies over a trained linear layer and this one is none.

    Example:
        >>> from medbolt.core import TimmClassifier
        >>> from medbolt.longtail import CosineHead
        >>> network = TimmClassifier("resnet10t", num_classes=5)
        >>> replace_head(network, CosineHead, "head")
        CosineHead(512, 5, scale=30.0, learn_scale=False)
    """
    layer = find_layer(module, path)
    made = make_head(layer, head)
    module.set_submodule(path, made)
    return made


class ReplaceHead(Callback):
    """Train any LightningModule with another head on its network.

    The layer is replaced in ``setup``, before the optimizers are made and before a checkpoint is loaded. So the same
    callback is needed for ``fit``, ``validate``, ``test`` and ``predict``; :func:`replace_head` does the same outside
    Lightning. The head stays on the module afterwards, and where one of its kind is already in place, that is kept.

    Args:
        head: Makes the head from the length of the features and the number of classes: a head class of this package,
            with its options left to give. In YAML a ``class_path`` with ``init_args``.
        path: Dotted attribute of the layer to replace, which tells both numbers: a linear one, or one of this package's
            heads.

    Raises:
        UserError: if there is no such layer, the head lies over a trained linear layer and this one is none, or an
            averaging of weights stands before it.

    Example:
        >>> from functools import partial
        >>> from lightning.pytorch import Trainer
        >>> from medbolt.longtail import CosineHead
        >>> head = ReplaceHead(partial(CosineHead, scale=16.0))
        >>> trainer = Trainer(callbacks=[head], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(self, head: HeadCallable, path: str = "model.head") -> None:
        self.head, self.path = head, path

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Replace the layer."""
        if stage == "fit":
            refuse_earlier_averaging(self, trainer, (WeightAveraging,))
        layer = find_layer(pl_module, self.path)
        made = make_head(layer, self.head)
        if type(made) is not type(layer):
            pl_module.set_submodule(self.path, made)


def find_layer(module: nn.Module, path: str) -> nn.Module:
    """Return the layer to replace.

    Raises:
        UserError: if there is none that tells its numbers of inputs and outputs.

    Example:
        >>> find_layer(nn.ModuleDict({"head": nn.Linear(3, 2)}), "head")
        Linear(in_features=3, out_features=2, bias=True)
    """
    try:
        layer = module.get_submodule(path)
    except AttributeError:
        layer = None
    if layer is None or not (hasattr(layer, "in_features") and hasattr(layer, "out_features")):
        linear = [name for name, part in module.named_modules() if isinstance(part, nn.Linear)]
        raise UserError(
            f"{type(module).__name__} has no linear layer '{path}' to put a head in the place of; "
            f"give path one of {listed(linear[::-1]) or 'none, for it has no linear layer'}."
        )
    return layer


def make_head(layer: nn.Module, head: HeadCallable) -> nn.Module:
    """Return a new head that fits into the place of a layer; one over a trained linear layer takes its weights.

    Raises:
        UserError: if the head lies over a trained linear layer and this layer is none, nor lies over one.

    Example:
        >>> make_head(nn.Linear(3, 2), nn.Linear)
        Linear(in_features=3, out_features=2, bias=True)
    """
    sizes = vars(layer)
    made = head(sizes["in_features"], sizes["out_features"])
    if isinstance(made, LinearBasedHead):
        if not isinstance(layer, nn.Linear | LinearBasedHead):
            raise UserError(
                f"{type(made).__name__} lies over a trained linear layer, but would replace a {type(layer).__name__}, "
                "which has none to take; train the network with a linear head, or put on another kind of head."
            )
        made.take(layer)
    if (values := next(layer.parameters(), None)) is not None:
        made.to(values.device)
    return made

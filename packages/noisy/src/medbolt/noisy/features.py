"""What the classifier of a network is given: the features that methods compare samples by."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from medbolt.core.errors import UserError, listed


def classifier_head(network: nn.Module, path: str | None, asker: str) -> nn.Linear:
    """Return the linear layer that makes logits of features.

    Args:
        network: The network.
        path: Dotted name of the layer in it; ``None`` for its last linear layer.
        asker: Who asks, for the message.

    Raises:
        UserError: if there is no such linear layer.

    Example:
        >>> classifier_head(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), None, "SSR")
        Linear(in_features=8, out_features=2, bias=True)
    """
    layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Linear)}
    if path is None and layers:
        return list(layers.values())[-1]
    if path is None or path not in layers:
        raise UserError(
            f"{asker} compares samples by the input of the network's classifier, but {type(network).__name__} has no "
            f"linear layer head={path!r}; it has {listed(layers) or 'none'}: name the one that makes the logits."
        )
    return layers[path]


@contextmanager
def inputs_of(layer: nn.Module) -> Iterator[list[Tensor]]:
    """Collect what a layer is given while a block runs.

    What ``torch.compile`` made calls no hooks, so the block runs it as it was before compilation.

    Example:
        >>> network = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
        >>> with inputs_of(network[1]) as found:
        ...     logits = network(torch.zeros(5, 3, 2, 2))
        >>> found[0].shape
        torch.Size([5, 12])
    """
    found: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda layer, inputs: found.append(inputs[0]))
    try:
        with torch.compiler.set_stance("force_eager"):
            yield found
    finally:
        handle.remove()

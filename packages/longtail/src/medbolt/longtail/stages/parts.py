"""Parts of a network by dotted name: found, compared and drawn anew."""

import zlib
from operator import attrgetter

import torch
from torch import nn

from medbolt.core.errors import UserError, listed
from medbolt.core.randomness import derive_seed, seeded


def find_part(network: nn.Module, name: str, option: str) -> nn.Module | nn.Parameter:
    """Return the layer or parameter at a dotted name; ``""`` is the network itself.

    Args:
        network: Where to look.
        name: Dotted name.
        option: What the name was given as, for the message.

    Raises:
        UserError: if there is no such part; the message lists those there are.

    Example:
        >>> find_part(nn.Sequential(nn.Linear(2, 3)), "0", "trainable")
        Linear(in_features=2, out_features=3, bias=True)
    """
    if not name:
        return network
    try:
        part = attrgetter(name)(network)
    except AttributeError:
        part = None
    if isinstance(part, nn.Module | nn.Parameter):
        return part
    parent = name.rpartition(".")[0]
    there = [child for child, _ in network.named_children()]
    if parent and isinstance(owner := find_part(network, parent, option), nn.Module):
        parameters = owner.named_parameters(recurse=False)
        there = [f"{parent}.{child}" for child, _ in (*owner.named_children(), *parameters)]
    raise UserError(
        f"{type(network).__name__} has no part {option}='{name}'; it has {listed(there) or 'none'}: name one of these, "
        "or a part of one."
    )


def is_within(name: str, part: str) -> bool:
    """Tell whether a dotted name is a part or inside it; everything is inside ``""``.

    Example:
        >>> is_within("head.scale", "head"), is_within("header", "head"), is_within("head", "")
        (True, False, True)
    """
    return not part or f"{name}.".startswith(f"{part}.")


def draw_anew(part: nn.Module | nn.Parameter, name: str, seed: int) -> None:
    """Draw the weights of a part anew, by each layer's ``reset_parameters``; the same on every machine.

    Args:
        part: The part.
        name: Its dotted name, for messages; parts of other names draw other weights.
        seed: Seed of the weights.

    Raises:
        UserError: if the part has no weights, or a layer with weights of its own has no ``reset_parameters``.

    Example:
        >>> head = nn.Linear(2, 3)
        >>> draw_anew(head, "head", seed=0)
    """
    if isinstance(part, nn.Parameter):
        raise UserError(f"reset='{name}' is a single parameter; name the layer that it belongs to.")
    owners = [(child, layer) for child, layer in part.named_modules() if any(True for _ in layer.parameters(False))]
    if not owners:
        raise UserError(f"reset='{name}' has no weights to draw anew; name a part that has, such as the head.")
    device = next(part.parameters()).device
    part.cpu()  # whose random numbers are the same on any machine
    with seeded(derive_seed(seed, zlib.crc32(name.encode()))), torch.no_grad():
        for child, layer in owners:
            reset = getattr(layer, "reset_parameters", None)
            if reset is None:
                dotted = ".".join(filter(None, (name, child)))
                raise UserError(
                    f"layer '{dotted}' ({type(layer).__name__}) has weights of its own but no reset_parameters() to "
                    "draw them anew with; give it one, or name other parts as reset."
                )
            reset()
    part.to(device)

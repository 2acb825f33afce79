"""Whether a network is still the one that something was tuned for."""

import zlib

import torch
from torch import nn


def fingerprint(network: nn.Module) -> int:
    """Return a number of a network's layers, parameters and buffers; the same on every device.

    Example:
        >>> layer = nn.Linear(2, 1)
        >>> before = fingerprint(layer)
        >>> layer.weight.data *= 2
        >>> fingerprint(layer) == before
        False
    """
    value = zlib.crc32(repr(network).encode())
    for name, values in (*network.named_parameters(), *network.named_buffers()):
        content = values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
        value = zlib.crc32(content, zlib.crc32(name.encode(), value))
    return value

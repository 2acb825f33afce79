"""Which classes are frequent, and which samples of a batch generate one together."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medbolt.core.errors import UserError


def pairs(is_frequent: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Return with which frequent sample each generated one is made, and of which rare one, (G,) int64 positions.

    G is the number of the kind there is more of, times the strength, in whole rounds of the other kind and at least
    one; 0 where a kind is missing.

    Args:
        is_frequent: (B,) bool, of the batch's samples.
        strength: Transfer strength, positive.

    Example:
        >>> pairs(torch.tensor([True, True, True, False]), strength=1.0)
        (tensor([0, 1, 2]), tensor([3, 3, 3]))
    """
    frequent, rare = is_frequent.nonzero()[:, 0], (~is_frequent).nonzero()[:, 0]
    few, many = sorted((len(frequent), len(rare)))
    rounds = max(int(strength * many / few + 1e-9), 1) if few else 0
    place = torch.arange(rounds * few, device=is_frequent.device)
    return frequent[place % max(len(frequent), 1)], rare[place % max(len(rare), 1)]


def frequent_classes(counts: Tensor, frequent: float | Sequence[int]) -> Tensor:
    """Return which classes are frequent, (C,) bool.

    Args:
        counts: (C,) int64 training samples of each class.
        frequent: A share of the classes, those with the most samples, at least one unless it is 0; or their indices.

    Raises:
        UserError: for an index that is of no class.

    Example:
        >>> frequent_classes(torch.tensor([5, 90, 7, 40, 1]), 0.4)
        tensor([False,  True, False,  True, False])
    """
    chosen = torch.zeros(len(counts), dtype=torch.bool)
    if isinstance(frequent, Sequence):
        if not all(0 <= c < len(counts) for c in frequent):
            raise UserError(
                f"RareSampleGeneration got frequent={list(frequent)} for {len(counts)} classes; give indices from 0 to "
                f"{len(counts) - 1}, or a share."
            )
        chosen[list(frequent)] = True
    elif frequent > 0:
        chosen[counts.argsort(descending=True, stable=True)[: max(int(frequent * len(counts) + 1e-9), 1)]] = True
    return chosen

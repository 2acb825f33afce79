"""Samplers whose order is a function of (seed, epoch), on any number of processes."""

from collections.abc import Iterator, Sized
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DistributedSampler

from medbolt.core.randomness import derive_seed, derive_seeds

_CHUNK = 4096


class Draw(int):
    """A position in a data set that also knows the seed of its draw.

    It is an ``int`` everywhere. :class:`~medbolt.core.data.dataset.ImageDataset` seeds its transform from it, so that
    augmentation depends on (seed, epoch, place in the epoch) only: not on the number of workers or processes, nor on
    where a run was resumed. A sample drawn twice in an epoch is augmented twice.

    Example:
        >>> Draw(3, seed=17) + 1, Draw(3, seed=17).seed
        (4, 17)
    """

    seed: int

    def __new__(cls, position: int, seed: int) -> "Draw":
        """Make the draw of ``position``."""
        draw = super().__new__(cls, position)
        draw.seed = seed
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Let a draw travel to a worker process."""
        return int(self), self.seed


class EpochSampler(DistributedSampler[int]):
    """Yield this process's share of an order that all processes agree on, seeded by (seed, epoch).

    The order is the same for any number of processes: with W processes, process r takes entries r, r + W, r + 2W, ...,
    so W processes with batch B see together the batches that one process sees with batch W * B. Lightning leaves a
    :class:`~torch.utils.data.DistributedSampler` alone and calls :meth:`set_epoch`. Subclasses override :meth:`order`.

    Args:
        dataset: The data set; only its length is read.
        shuffle: Permute the positions anew each epoch.
        seed: Seed of the order and of the draws; the same on every process.
        num_replicas: Number of processes W.
        rank: This process, 0 to W - 1.
        tail: What happens when the order does not divide by W. ``"repeat"`` pads it with its first entries (torch's
            rule), ``"drop"`` shortens it, ``"uneven"`` lets the first processes have one more. Training needs equal
            shares; evaluation wants ``"uneven"``, so that nothing is counted twice.

    Example:
        >>> sampler = EpochSampler(range(5), shuffle=False, num_replicas=2, rank=1)
        >>> list(sampler)
        [1, 3]
    """

    def __init__(
        self,
        dataset: Sized,
        shuffle: bool = True,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        tail: Literal["repeat", "drop", "uneven"] = "uneven",
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle=shuffle, seed=seed, drop_last=tail == "drop")  # pyright: ignore[reportArgumentType]
        self.tail = tail
        self.start = 0  # draws of this process to pass over in the next iteration (a resumed epoch)

    def order(self) -> Tensor:
        """Return the positions of this epoch, (n,) int64, the same on every process."""
        size = len(self.dataset)  # pyright: ignore[reportArgumentType]
        if not self.shuffle:
            return torch.arange(size)
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return torch.randperm(size, generator=generator)

    @property
    def epoch_size(self) -> int:
        """Number of draws of an epoch over all processes, before the tail is treated."""
        return len(self.dataset)  # pyright: ignore[reportArgumentType]

    def __len__(self) -> int:
        """Return the number of draws of this process in an epoch."""
        return len(range(self.rank, self._total(), self.num_replicas))

    def __iter__(self) -> Iterator[int]:
        """Yield this process's draws of the epoch."""
        start, self.start = self.start, 0
        order, total = self.order(), self._total()
        if total > len(order):
            order = order.repeat(-(-total // len(order)))
        places = range(self.rank + start * self.num_replicas, total, self.num_replicas)
        shard = order[places.start : total : self.num_replicas]
        seeds = derive_seeds(self.seed, self.epoch, last=np.asarray(places))
        for begin in range(0, len(shard), _CHUNK):  # Python integers of a few samples at a time
            chunk = slice(begin, begin + _CHUNK)
            yield from map(Draw, shard[chunk].tolist(), seeds[chunk].tolist())

    def _total(self) -> int:
        size, replicas = self.epoch_size, self.num_replicas
        if self.tail == "drop":
            return size - size % replicas
        if self.tail == "repeat":
            return -(-size // replicas) * replicas
        return size

"""What a data module calls to make a sampler."""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

from medbolt.core import EpochSampler

Tail = Literal["repeat", "drop", "uneven"]
"""What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`."""

SamplerCallable = Callable[[Tensor, int, int, int, Tail], EpochSampler]
"""Makes a sampler from targets, seed, number of processes, rank and tail; a sampler class of this package is one."""

"""Randomness as a function of where a run is, so that a resumed run repeats the uninterrupted one."""

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

_MASK = (1 << 64) - 1
STEP = 0x9E3779B97F4A7C15
"""What SplitMix64 adds from one state to the next: 2**64 over the golden ratio."""
_FIRST, _SECOND = 0xBF58476D1CE4E5B9, 0x94D049BB133111EB  # its multipliers


def derive_seed(*parts: int) -> int:
    """Mix integers such as (seed, epoch, step, rank) into one seed of 63 bits.

    SplitMix64 (Steele et al., doi 10.1145/2714064.2660195) chained over the parts: neighbouring parts give unrelated
    seeds, the order of the parts matters, and the result is the same on every platform.

    Args:
        parts: Integers, negative ones allowed.

    Returns:
        A seed in [0, 2**63).

    Example:
        >>> derive_seed(0, 1) == derive_seed(0, 1), derive_seed(0, 1) == derive_seed(1, 0)
        (True, False)
    """
    return _mixed(parts) >> 1


def derive_seeds(*parts: int, last: np.ndarray) -> np.ndarray:
    """Return ``derive_seed(*parts, i)`` for every i of an array, all at once.

    Args:
        parts: Integers, negative ones allowed.
        last: (n,) integers.

    Returns:
        (n,) int64 seeds in [0, 2**63).

    Example:
        >>> derive_seeds(0, 1, last=np.arange(3)).tolist() == [derive_seed(0, 1, i) for i in range(3)]
        True
    """
    state = np.uint64(_mixed(parts)) ^ last.astype(np.int64).astype(np.uint64)
    return (scattered(state + np.uint64(STEP)) >> np.uint64(1)).astype(np.int64)


def scattered(state: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply the finaliser of SplitMix64, a bijection after which neighbours are unrelated.

    Example:
        >>> hex(scattered(np.array([STEP], np.uint64))[0])  # the first number of SplitMix64 with seed 0
        '0xe220a8397b1dcdaf'
    """
    # uint64 wraps around by itself
    state = (state ^ (state >> np.uint64(30))) * np.uint64(_FIRST)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(_SECOND)
    return state ^ (state >> np.uint64(31))


def _mixed(parts: tuple[int, ...]) -> int:
    state = STEP
    for part in parts:
        state ^= int(part) & _MASK  # int: NumPy's integers cannot hold the mask
        state = (state + STEP) & _MASK
        # as `scattered`, in plain integers: an array of one number takes several times as long
        state = ((state ^ (state >> 30)) * _FIRST) & _MASK
        state = ((state ^ (state >> 27)) * _SECOND) & _MASK
        state ^= state >> 31
    return state


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run a block with torch's CPU generator seeded, and put the generator back afterwards.

    Only the CPU generator is touched: transforms run on the CPU, and seeding an accelerator from a data loader in the
    main process would change the training step.

    Example:
        >>> with seeded(3):
        ...     a = torch.rand(())
        >>> with seeded(3):
        ...     assert torch.rand(()) == a
    """
    state = torch.get_rng_state()
    torch.default_generator.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)

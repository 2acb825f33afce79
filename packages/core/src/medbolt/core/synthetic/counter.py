"""Counter-based random numbers: sample i's draws depend on (seed, stream, i) and on nothing else."""

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medbolt.core.randomness import STEP, scattered

_STEP = np.uint64(STEP)


class Stream(IntEnum):
    """What a random number is for: a new draw in one stream leaves the others alone."""

    PATIENT_GRADE = 0
    EYE_GRADE = 1
    SHARED_GRADE = 2
    DOMAIN = 3
    POPULATION = 4
    COUNTS = 5
    WORDING = 6
    PATIENT = 7
    EYE = 8
    LESIONS = 9
    RATERS = 10
    CAMERA = 11
    VESSELS = 12


@lru_cache(maxsize=256)
def _key(seed: int, stream: Stream) -> NDArray[np.uint64]:
    return scattered(scattered(np.array([seed], np.uint64) + _STEP) + np.array([stream], np.uint64) * _STEP)


def uniform(seed: int, stream: Stream, index: NDArray[np.int64], draws: int) -> NDArray[np.float64]:
    """Return uniform numbers in [0, 1) that are a pure function of (seed, stream, index, draw).

    Args:
        seed: At least 0.
        stream: What the numbers are for.
        index: (N,) at least 0.
        draws: Numbers wanted for each index.

    Returns:
        (N, draws) float64, the same on every platform.

    Example:
        >>> few, many = (uniform(0, Stream.COUNTS, np.arange(n), draws=2) for n in (3, 100))
        >>> bool((few == many[:3]).all())
        True
    """
    rows = scattered(_key(seed, stream) + index.astype(np.uint64) * _STEP)
    bits = scattered(rows[:, None] + np.arange(1, draws + 1, dtype=np.uint64) * _STEP)
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def generator(seed: int, stream: Stream, index: int) -> np.random.Generator:
    """Return the random generator of one sample's stream: Philox, keyed by (seed, stream, index)."""
    return np.random.Generator(np.random.Philox(key=np.array([_key(seed, stream)[0], index], np.uint64)))

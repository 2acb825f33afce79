"""Bootstrap replicates as weights: how often each sample is drawn, patient by patient."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medbolt.core.errors import UserError

Statistic = Callable[..., Any]
"""``statistic(target, *outputs, weight=None)``: a number without weights, (R,) numbers for weights of shape (R, n)."""

_MOST_DISCARDED = 0.05
_CHUNK = 2**22  # weights held at once, 32 MiB of float64


def from_samples(function: Callable[..., float]) -> Statistic:
    """Make a bootstrap statistic of any function of samples, for instance a scikit-learn metric.

    The metrics of this package take weights and are evaluated on all replicates at once; a function that does not is
    called on every replicate. A replicate that lacks a class of ``target`` counts as undefined: the function is not
    called. So target must be integers or bools for classes; a float target has no classes.

    Args:
        function: ``function(target, *outputs) -> float``.

    Returns:
        The statistic, for :func:`bootstrap_interval` and its relatives.

    Example:
        >>> from sklearn.metrics import f1_score
        >>> f1 = from_samples(f1_score)
        >>> f1(np.array([0, 1, 1, 0]), np.array([0, 1, 0, 0]), weight=np.array([[1, 1, 1, 1], [2, 2, 0, 0]]))
        array([0.666..., 1. ])
    """

    def statistic(target: NDArray, *outputs: NDArray, weight: NDArray | None = None) -> Any:
        if weight is None:
            return function(target, *outputs)
        values = np.full(len(weight), np.nan)
        for row in np.flatnonzero(_has_all_classes(target, weight)):
            drawn = np.repeat(np.arange(len(target)), weight[row].astype(np.int64))
            values[row] = function(target[drawn], *(output[drawn] for output in outputs))
        return values

    return statistic


def _has_all_classes(target: NDArray, weight: NDArray) -> NDArray[np.bool_]:
    if target.dtype.kind not in "biu" or target.ndim != 1:
        return np.ones(len(weight), bool)
    members = target == np.unique(target)[:, None]
    return ((weight @ members.T) > 0).all(axis=1)


class Resampler:
    """Draw bootstrap and jackknife weights over samples that come in groups and strata.

    The unit of resampling is the group: a patient's images are drawn, or left out, together. Under stratification
    each stratum keeps its number of units; a group with several classes belongs to the rarest of them.

    Args:
        size: Number of samples n.
        groups: (n,) what must not be split (patient, lesion, eye); None if every sample stands alone.
        classes: (n,) class of each sample to stratify by; None for no strata.
    """

    def __init__(self, size: int, groups: ArrayLike | None = None, classes: ArrayLike | None = None) -> None:
        self.unit = np.arange(size) if groups is None else np.unique(_column(groups, size), return_inverse=True)[1]
        """(n,) unit of each sample, 0 to U - 1."""
        self.units = int(self.unit.max()) + 1 if size else 0
        if self.units < 2:
            raise UserError(f"A bootstrap needs at least two independent units (groups or samples), got {self.units}.")
        self.stratum = np.zeros(self.units, np.int64)
        """(U,) stratum of each unit."""
        if classes is not None:
            code, count = np.unique(_column(classes, size), return_inverse=True, return_counts=True)[1:]
            rarity = np.argsort(np.argsort(-count, kind="stable"))[code]
            np.maximum.at(self.stratum, self.unit, rarity)

    def bootstrap(self, replicates: int, rng: np.random.Generator) -> Iterator[NDArray[np.float64]]:
        """Yield weights of shape (some, n) until there are ``replicates`` rows."""
        strata = [np.flatnonzero(self.stratum == stratum) for stratum in np.unique(self.stratum)]
        rows = max(1, _CHUNK // len(self.unit))
        for start in range(0, replicates, rows):
            count = min(rows, replicates - start)
            weight = np.empty((count, self.units))
            for members in strata:
                drawn = rng.integers(0, len(members), (count, len(members)))
                drawn += np.arange(count)[:, None] * len(members)
                counts = np.bincount(drawn.ravel(), minlength=count * len(members))
                weight[:, members] = counts.reshape(count, -1)
            yield weight[:, self.unit]

    def jackknife(self) -> Iterator[NDArray[np.float64]]:
        """Yield weights of shape (some, n), each row leaving out one unit, until every unit was left out."""
        rows = max(1, _CHUNK // len(self.unit))
        for start in range(0, self.units, rows):
            left_out = np.arange(start, min(start + rows, self.units))
            yield (self.unit != left_out[:, None]).astype(np.float64)


def replicate(
    statistic: Statistic, data: tuple[NDArray, ...], resampler: Resampler, replicates: int, seed: int
) -> tuple[float, NDArray[np.float64], int]:
    """Return the estimate, the defined bootstrap replicates of it, and how many replicates were undefined.

    Raises:
        UserError: if the statistic is undefined on the data, or on more than 5 % of the replicates.
    """
    if replicates < 1:
        raise ValueError(f"replicates must be at least 1, got {replicates}")
    estimate = float(statistic(*data))
    if np.isnan(estimate):
        raise UserError("The statistic is undefined on these samples: a class that it needs has no sample.")
    rng = np.random.default_rng(seed)
    values = np.concatenate([statistic(*data, weight=weight) for weight in resampler.bootstrap(replicates, rng)])
    kept = values[~np.isnan(values)]
    discarded = len(values) - len(kept)
    if discarded > _MOST_DISCARDED * replicates:
        raise UserError(
            f"{discarded} of {replicates} bootstrap replicates lack a class, so the interval would be biased; "
            "use stratified=True or leave out the rare class."
        )
    return estimate, kept, discarded


def _column(values: ArrayLike, size: int) -> NDArray:
    column = np.asarray(values)
    if column.shape != (size,):
        raise ValueError(f"groups and classes must have shape ({size},), got {column.shape}")
    return column

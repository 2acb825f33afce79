"""Training is random too: intervals over seeds, and over seeds and patients at once."""

from collections.abc import Sequence

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray

from medbolt.core.stats.bootstrap import bootstrap_interval, difference_from, tail_probabilities
from medbolt.core.stats.interval import Difference, Interval
from medbolt.core.stats.resample import Statistic


def seed_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    r"""Mean over S training seeds with Student's interval (the "seed interval").

    .. math:: \bar v \pm t_{1-\alpha/2,\,S-1} \, s / \sqrt S

    It tells how much training varies, nothing of how much the test set does: report it beside a bootstrap interval.

    Args:
        values: (S,) score of each seed.
        level: Nominal coverage.

    Returns:
        The mean with its interval.

    Raises:
        ValueError: for fewer than two seeds or a value that is not finite.

    Example:
        >>> print(seed_interval([0.80, 0.82, 0.81, 0.79, 0.83]))  # t = 2.776, not 1.96
        0.810 (0.790 to 0.830)
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or len(values) < 2 or not np.isfinite(values).all():
        raise ValueError(f"values must be a vector of at least two finite scores, got {values}")
    spread = values.std(ddof=1) / np.sqrt(len(values))
    low, high = values.mean() + scipy.stats.t.ppf(tail_probabilities(level), len(values) - 1) * spread
    return Interval(float(values.mean()), float(low), float(high), level)


def seeds_bootstrap(
    statistic: Statistic,
    target: ArrayLike,
    runs: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    stratified: bool = False,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Mean score of S training runs with an interval over patients and seeds: both are resampled in every replicate.

    Resampling S seeds understates their variance by the factor (S - 1) / S, so use five or more.

    Args:
        statistic: ``statistic(target, output, weight=None)``, see :func:`bootstrap_interval`.
        target: (n,) or (n, K) labels.
        runs: S outputs, one a seed, each of length n in the order of ``target``.
        groups: (n,) unit that is resampled as a whole.
        stratified: Keep the number of units in each class.
        replicates: Number of bootstrap replicates.
        level: Nominal coverage of the percentile interval.
        seed: Seed of the resampling.

    Returns:
        The mean over seeds with its interval.

    Raises:
        UserError: as :func:`bootstrap_interval`.

    Example:
        >>> from medbolt.core.stats import accuracy
        >>> runs = [np.arange(100) < right for right in (78, 80, 82)]
        >>> print(seeds_bootstrap(accuracy, np.ones(100), runs))
        0.800 (0.720 to 0.873)
    """
    mean = _mean_over_seeds(statistic, len(runs), seed)
    return bootstrap_interval(
        mean, target, *runs, groups=groups, stratified=stratified, replicates=replicates, level=level, seed=seed
    )


def seeds_difference(
    statistic: Statistic,
    target: ArrayLike,
    first: Sequence[ArrayLike],
    second: Sequence[ArrayLike],
    groups: ArrayLike | None = None,
    stratified: bool = False,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    """Compare two methods trained with the same S seeds: patients and seed pairs are resampled together.

    Args:
        statistic: ``statistic(target, output, weight=None)``, see :func:`bootstrap_interval`.
        target: (n,) or (n, K) labels.
        first: S outputs of the first method; run s shares seed, split and subset with run s of ``second``.
        second: S outputs of the second method.
        groups: (n,) unit that is resampled as a whole.
        stratified: Keep the number of units in each class.
        replicates: Number of bootstrap replicates.
        level: Nominal coverage of the percentile interval.
        seed: Seed of the resampling.

    Returns:
        Mean score of the first minus that of the second, with interval and two-sided p-value.

    Raises:
        ValueError: if the methods have different numbers of runs.
        UserError: as :func:`bootstrap_interval`.

    Example:
        >>> from medbolt.core.stats import accuracy
        >>> first, second = ([np.arange(100) < right + seed for seed in range(3)] for right in (80, 70))
        >>> print(seeds_difference(accuracy, np.ones(100), first, second))
        0.100 (0.050 to 0.163), p = 0.001
    """
    if len(first) != len(second):
        raise ValueError(f"first and second must have a run for each seed, got {len(first)} and {len(second)} runs")

    def difference(target: NDArray, *pair: NDArray, weight: NDArray | None = None) -> NDArray:
        return statistic(target, pair[0], weight=weight) - statistic(target, pair[1], weight=weight)

    mean = _mean_over_seeds(difference, len(first), seed)
    pairs = tuple(output for pair in zip(first, second, strict=True) for output in pair)
    return difference_from(mean, target, pairs, groups, stratified, replicates, level, seed)


def _mean_over_seeds(statistic: Statistic, seeds: int, seed: int) -> Statistic:
    """Mean of a statistic over the runs; over runs drawn with replacement when there are weights.

    The outputs of one run are adjacent. The seeds come from a generator of their own, apart from that of the patients.
    """
    if seeds < 2:
        raise ValueError(f"resampling seeds needs at least two runs, got {seeds}")
    rng = np.random.default_rng([seed, 1])

    def mean(target: NDArray, *outputs: NDArray, weight: NDArray | None = None) -> NDArray:
        per_run = len(outputs) // seeds
        starts = range(0, len(outputs), per_run)
        values = np.stack([statistic(target, *outputs[s : s + per_run], weight=weight) for s in starts], axis=-1)
        if weight is None:
            return values.mean()
        return np.take_along_axis(values, rng.integers(0, seeds, values.shape), axis=1).mean(1)

    return mean

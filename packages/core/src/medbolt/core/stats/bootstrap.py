"""Bootstrap confidence intervals that respect patients and rare classes."""

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr, ndtri

from medbolt.core.stats.interval import Difference, Interval
from medbolt.core.stats.resample import Resampler, Statistic, replicate


def bootstrap_interval(
    statistic: Statistic,
    target: ArrayLike,
    *outputs: ArrayLike,
    groups: ArrayLike | None = None,
    stratified: bool = False,
    method: Literal["percentile", "bca"] = "percentile",
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    r"""Estimate a statistic with its bootstrap confidence interval.

    Percentile: the :math:`\alpha/2` and :math:`1 - \alpha/2` quantiles of the replicates :math:`\theta^*`. BCa moves
    them to

    .. math:: \Phi\Big(z_0 + \frac{z_0 + z_{\alpha/2}}{1 - a (z_0 + z_{\alpha/2})}\Big), \quad
              z_0 = \Phi^{-1}\big(P(\theta^* < \hat\theta) + \tfrac12 P(\theta^* = \hat\theta)\big)

    with the acceleration :math:`a` from the jackknife over units, so it corrects bias and skewness. The half weight of
    ties matters for statistics with few values, such as accuracy.

    Args:
        statistic: A metric of this package, or any function of samples through :func:`from_samples`.
        target: (n,) or (n, K) labels.
        *outputs: What else the statistic takes, each of length n.
        groups: (n,) patient or other unit that is resampled as a whole. Several images a patient without groups make
            an interval that is too narrow.
        stratified: Keep the number of units in each class of ``target``; needed when a class has few units.
        method: ``"percentile"`` or ``"bca"``.
        replicates: Number of bootstrap replicates B.
        level: Nominal coverage.
        seed: Seed of the resampling.

    Returns:
        The interval, with the number of replicates discarded because a class was not drawn.

    Raises:
        UserError: if the statistic is undefined on the data or on more than 5 % of the replicates.

    Cost: the weights of all replicates, n x B numbers (in pieces of 32 MiB), and the statistic on them.

    Source: Efron, "Better bootstrap confidence intervals", doi 10.1080/01621459.1987.10478410.

    Example:
        >>> from medbolt.core.stats import accuracy
        >>> right = np.arange(100) < 80
        >>> print(bootstrap_interval(accuracy, np.ones(100), right))
        0.800 (0.720 to 0.880)
    """
    data, resampler = _prepare(target, outputs, groups, stratified)
    tails = tail_probabilities(level)
    estimate, values, discarded = replicate(statistic, data, resampler, replicates, seed)
    if method == "bca":
        tails = _bca_tails(tails, estimate, values, _acceleration(statistic, data, resampler))
    elif method != "percentile":
        raise ValueError(f"method must be 'percentile' or 'bca', got {method!r}")
    low, high = np.quantile(values, tails)
    return Interval(estimate, float(low), float(high), level, discarded)


def bootstrap_difference(
    statistic: Statistic,
    target: ArrayLike,
    first: ArrayLike,
    second: ArrayLike,
    groups: ArrayLike | None = None,
    stratified: bool = False,
    replicates: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> Difference:
    r"""Compare two models on the same samples: the statistic of the first minus that of the second.

    Every replicate draws the same units for both models, so what makes a patient hard for both cancels. The two-sided
    p-value is :math:`2 \min(P(\Delta^* \le 0), P(\Delta^* \ge 0))` with one added to count and total (it is never 0).

    Args:
        statistic: ``statistic(target, output, weight=None)``, see :func:`bootstrap_interval`.
        target: (n,) or (n, K) labels.
        first: Output of the first model, length n, in the order of ``target``.
        second: Output of the second model.
        groups: (n,) unit that is resampled as a whole.
        stratified: Keep the number of units in each class.
        replicates: Number of bootstrap replicates B; the smallest p-value is 2 / (B + 1).
        level: Nominal coverage of the percentile interval.
        seed: Seed of the resampling.

    Returns:
        The difference with its interval and p-value.

    Raises:
        UserError: as :func:`bootstrap_interval`.

    Example:
        >>> from medbolt.core.stats import accuracy
        >>> truth = np.ones(100)
        >>> print(bootstrap_difference(accuracy, truth, np.arange(100) < 80, np.arange(100) < 70))
        0.100 (0.050 to 0.160), p = 0.001
    """

    def difference(target: NDArray, first: NDArray, second: NDArray, weight: NDArray | None = None) -> NDArray:
        return statistic(target, first, weight=weight) - statistic(target, second, weight=weight)

    return difference_from(difference, target, (first, second), groups, stratified, replicates, level, seed)


def difference_from(
    statistic: Statistic,
    target: ArrayLike,
    outputs: tuple[ArrayLike, ...],
    groups: ArrayLike | None,
    stratified: bool,
    replicates: int,
    level: float,
    seed: int,
) -> Difference:
    """Bootstrap a statistic that is itself a difference: percentile interval and p-value of "no difference"."""
    data, resampler = _prepare(target, outputs, groups, stratified)
    estimate, values, discarded = replicate(statistic, data, resampler, replicates, seed)
    low, high = np.quantile(values, tail_probabilities(level))
    tail = min((values <= 0).sum(), (values >= 0).sum())
    p_value = min(1.0, 2 * (tail + 1) / (len(values) + 1))
    return Difference(estimate, float(low), float(high), level, discarded, float(p_value))


def tail_probabilities(level: float) -> NDArray[np.float64]:
    """Return the probabilities below the two ends of a central interval.

    Example:
        >>> tail_probabilities(0.95)
        array([0.025, 0.975])
    """
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
    return np.array([(1 - level) / 2, (1 + level) / 2])


def _prepare(
    target: ArrayLike, outputs: tuple[ArrayLike, ...], groups: ArrayLike | None, stratified: bool
) -> tuple[tuple[NDArray, ...], Resampler]:
    data = tuple(np.asarray(values) for values in (target, *outputs))
    if len({len(values) for values in data}) != 1:
        raise ValueError(f"target and outputs must have the same length, got {[len(values) for values in data]}")
    if stratified and data[0].ndim != 1:
        raise ValueError("stratified=True needs one class a sample, but target has several columns")
    return data, Resampler(len(data[0]), groups, data[0] if stratified else None)


def _bca_tails(
    tails: NDArray[np.float64], estimate: float, values: NDArray[np.float64], acceleration: float
) -> NDArray[np.float64]:
    below = ((values < estimate).mean() + (values <= estimate).mean()) / 2
    bias = ndtri(np.clip(below, 0.5 / len(values), 1 - 0.5 / len(values)))
    shifted = bias + ndtri(tails)
    return ndtr(bias + shifted / (1 - acceleration * shifted))


def _acceleration(statistic: Statistic, data: tuple[NDArray, ...], resampler: Resampler) -> float:
    """Skewness of the jackknife influences; strata contribute by their sizes, as several samples do in SciPy."""
    values = np.concatenate([statistic(*data, weight=weight) for weight in resampler.jackknife()])
    cubes = squares = 0.0
    for stratum in np.unique(resampler.stratum):
        left_out = values[resampler.stratum == stratum]
        left_out = left_out[~np.isnan(left_out)]
        if len(left_out) > 1:
            influence = (len(left_out) - 1) * (left_out.mean() - left_out) / len(left_out)
            cubes += (influence**3).sum()
            squares += (influence**2).sum()
    return cubes / (6 * squares**1.5) if squares > 0 else 0.0

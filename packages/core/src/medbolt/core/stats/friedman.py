"""Several methods on several data sets: Friedman's test and Nemenyi's comparison of mean ranks."""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike, NDArray


@dataclass(frozen=True)
class FriedmanTest:
    """Do k methods differ at all over N data sets?"""

    mean_ranks: NDArray[np.float64]
    """(k,) mean rank of each method; 1 is best."""
    chi2: float
    """Friedman's statistic, corrected for ties; k - 1 degrees of freedom."""
    chi2_p_value: float
    f: float
    """Iman and Davenport's statistic, less conservative; k - 1 and (k - 1)(N - 1) degrees of freedom."""
    p_value: float
    """Of ``f``: the one to report."""


@dataclass(frozen=True)
class NemenyiTest:
    """Which pairs of methods differ?"""

    mean_ranks: NDArray[np.float64]
    """(k,) mean rank of each method; 1 is best."""
    critical_difference: float
    """Two methods differ at level ``alpha`` if their mean ranks are at least this far apart."""
    alpha: float
    p_values: NDArray[np.float64]
    """(k, k) p-value of each pair, adjusted for all pairs; 1 on the diagonal."""


def friedman(scores: ArrayLike, higher_is_better: bool = True) -> FriedmanTest:
    r"""Test whether k methods differ over N data sets.

    .. math:: \chi^2_F = \frac{12 N}{k (k + 1)} \Big[\sum_j R_j^2 - \frac{k (k + 1)^2}{4}\Big], \quad
              F_F = \frac{(N - 1) \chi^2_F}{N (k - 1) - \chi^2_F}

    with :math:`R_j` the mean rank of method j.

    Args:
        scores: (N, k) score of each method (columns) on each data set (rows).
        higher_is_better: Whether rank 1 goes to the highest score.

    Returns:
        Mean ranks and both forms of the test.

    Raises:
        ValueError: for fewer than three methods (use :func:`wilcoxon`), fewer than two data sets, or a NaN.

    Source: Demšar, JMLR 7:1-30, 2006; Iman and Davenport, doi 10.1080/03610928008827904.

    Example:
        >>> test = friedman([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.9, 0.5], [0.6, 0.5, 0.4]])
        >>> test.mean_ranks, round(test.chi2, 2), round(test.f, 2), round(test.p_value, 4)
        (array([1.25, 1.75, 3. ]), 6.5, 13.0, 0.0066)
    """
    ranks = _ranks(scores, higher_is_better)
    datasets, methods = ranks.shape
    chi2, chi2_p = scipy.stats.friedmanchisquare(*ranks.T) if np.ptp(ranks, axis=1).any() else (0.0, 1.0)
    slack = datasets * (methods - 1) - chi2
    f = (datasets - 1) * chi2 / slack if slack > 1e-12 * datasets else np.inf
    p_value = scipy.stats.f.sf(f, methods - 1, (methods - 1) * (datasets - 1))
    return FriedmanTest(ranks.mean(0), float(chi2), float(chi2_p), float(f), float(p_value))


def nemenyi(scores: ArrayLike, alpha: float = 0.05, higher_is_better: bool = True) -> NemenyiTest:
    r"""Compare all pairs of k methods by their mean ranks over N data sets, after Friedman's test.

    .. math:: \mathrm{CD} = \frac{q_\alpha}{\sqrt 2} \sqrt{\frac{k (k + 1)}{6 N}}

    with :math:`q_\alpha` the quantile of the studentized range of k and infinitely many degrees of freedom. A pair's
    verdict depends on which other methods take part; pairwise :func:`wilcoxon` with :func:`holm` is free of
    that.

    Args:
        scores: (N, k) score of each method (columns) on each data set (rows).
        alpha: Family-wise level of the critical difference.
        higher_is_better: Whether rank 1 goes to the highest score.

    Returns:
        Mean ranks, critical difference, pairwise p-values.

    Raises:
        ValueError: for fewer than two methods or data sets, a NaN, or ``alpha`` outside (0, 1).

    Source: Demšar, JMLR 7:1-30, 2006.

    Example:
        >>> test = nemenyi([[0.9, 0.8, 0.7], [0.8, 0.7, 0.6], [0.7, 0.9, 0.5], [0.6, 0.5, 0.4]])
        >>> round(test.critical_difference, 3), test.p_values[0].round(3)
        (1.657, array([1. , 0.759, 0.036]))
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), got {alpha}")
    ranks = _ranks(scores, higher_is_better, fewest_methods=2)
    datasets, methods = ranks.shape
    mean_ranks = ranks.mean(0)
    unit = np.sqrt(methods * (methods + 1) / (6 * datasets)) / np.sqrt(2)
    distance = np.abs(mean_ranks[:, None] - mean_ranks) / unit
    quantile = scipy.stats.studentized_range.ppf(1 - alpha, methods, np.inf)
    p_values = scipy.stats.studentized_range.sf(distance, methods, np.inf)
    np.fill_diagonal(p_values, 1.0)
    return NemenyiTest(mean_ranks, float(quantile * unit), alpha, np.clip(p_values, 0, 1))


def _ranks(scores: ArrayLike, higher_is_better: bool, fewest_methods: int = 3) -> NDArray[np.float64]:
    scores = np.asarray(scores, np.float64)
    if scores.ndim != 2 or scores.shape[0] < 2 or scores.shape[1] < fewest_methods:
        raise ValueError(
            f"scores must have at least 2 data sets (rows) and {fewest_methods} methods (columns), got {scores.shape}"
        )
    if np.isnan(scores).any():
        raise ValueError("scores must not hold NaN: leave out data sets that a method lacks")
    return scipy.stats.rankdata(-scores if higher_is_better else scores, axis=1)

"""Variance of the area under the ROC curve, and the paired test of two models, without resampling."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit, logit, ndtri
from scipy.stats import norm, rankdata

from medbolt.core.errors import UserError
from medbolt.core.stats.auroc import binary_scores
from medbolt.core.stats.bootstrap import tail_probabilities
from medbolt.core.stats.interval import Interval


@dataclass(frozen=True)
class DelongTest:
    """Two areas under the ROC curve on the same samples, compared."""

    first: float
    second: float
    standard_error: float
    """Standard error of the difference first - second."""
    z: float
    p_value: float
    """Two-sided."""


def delong_covariance(target: ArrayLike, *scores: ArrayLike) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    r"""Areas under the ROC curve of M models on the same samples, and the covariance of these estimates.

    With midranks T within the positives X, within the negatives Y and in the pool Z,

    .. math:: V^{10}_i = \frac{T_Z(X_i) - T_X(X_i)}{n}, \quad V^{01}_j = 1 - \frac{T_Z(Y_j) - T_Y(Y_j)}{m}, \quad
              S = \frac{\operatorname{cov} V^{10}}{m} + \frac{\operatorname{cov} V^{01}}{n}

    for m positives and n negatives; the area is the mean of :math:`V^{10}`.

    Args:
        target: (m + n,) 0 or 1, or bool.
        *scores: M arrays (m + n,), higher means positive.

    Returns:
        (M,) areas and (M, M) covariance.

    Raises:
        UserError: if there are fewer than two positives or two negatives.
        ValueError: if ``target`` holds anything but 0 and 1, or a score is NaN.

    Source: DeLong, DeLong and Clarke-Pearson, doi 10.2307/2531595; midranks: Sun and Xu, doi 10.1109/LSP.2014.2337313.

    Example:
        >>> area, covariance = delong_covariance([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        >>> area, covariance
        (array([0.75]), array([[0.125]]))
    """
    checked = [binary_scores(target, score) for score in scores]
    target = checked[0][0]
    positives, negatives = int(target.sum()), int((~target).sum())
    if min(positives, negatives) < 2:
        raise UserError(
            f"DeLong's variance needs two positives and two negatives or more, got {positives} and {negatives}; "
            "leave this class out or collect more samples."
        )
    score = np.stack([score.astype(np.float64) for _, score in checked])
    pooled = rankdata(score, axis=1)
    of_positives = (pooled[:, target] - rankdata(score[:, target], axis=1)) / negatives
    of_negatives = 1 - (pooled[:, ~target] - rankdata(score[:, ~target], axis=1)) / positives
    covariance = np.atleast_2d(np.cov(of_positives)) / positives + np.atleast_2d(np.cov(of_negatives)) / negatives
    return of_positives.mean(1), covariance


def delong_interval(
    target: ArrayLike, score: ArrayLike, level: float = 0.95, groups: ArrayLike | None = None
) -> Interval:
    r"""Area under the ROC curve with DeLong's interval on the logit scale, so it stays inside (0, 1).

    .. math:: \operatorname{logit} A \pm z_{1-\alpha/2} \, \frac{\mathrm{se}}{A (1 - A)}

    A perfect (or perfectly wrong) area has variance zero and an interval without width, which is not certainty.

    Args:
        target: (n,) 0 or 1, or bool.
        score: (n,) higher means positive.
        level: Nominal coverage.
        groups: (n,) patient or other unit; only checked, for the formula assumes independent samples.

    Returns:
        The area with its interval.

    Raises:
        UserError: if a group has several samples, or there are fewer than two positives or negatives.

    Example:
        >>> print(delong_interval([0, 0, 0, 1, 1, 1], [0.1, 0.4, 0.6, 0.35, 0.8, 0.9]))
        0.778 (0.173 to 0.983)
    """
    _check_independent(groups)
    areas, covariance = delong_covariance(target, score)
    area, error = float(areas[0]), float(np.sqrt(covariance[0, 0]))
    if error == 0:
        return Interval(area, area, area, level)
    low, high = expit(logit(area) + ndtri(tail_probabilities(level)) * error / (area * (1 - area)))
    return Interval(area, float(low), float(high), level)


def delong_test(target: ArrayLike, first: ArrayLike, second: ArrayLike, groups: ArrayLike | None = None) -> DelongTest:
    r"""Test whether two models have the same area under the ROC curve on the same samples.

    .. math:: z = \frac{A_1 - A_2}{\sqrt{S_{11} + S_{22} - 2 S_{12}}}, \quad p = 2 (1 - \Phi(|z|))

    Args:
        target: (n,) 0 or 1, or bool.
        first: (n,) scores of the first model.
        second: (n,) scores of the second model.
        groups: (n,) patient or other unit; only checked, for the formula assumes independent samples.

    Returns:
        Both areas, z and p; z is 0 and p is 1 for models that rank all pairs alike.

    Raises:
        UserError: if a group has several samples, or there are fewer than two positives or negatives.

    Example:
        >>> target = [0, 0, 0, 0, 1, 1, 1, 1]
        >>> test = delong_test(target, [1, 2, 3, 5, 4, 6, 7, 8], [1, 7, 3, 6, 2, 5, 4, 8])
        >>> round(test.z, 3), round(test.p_value, 3)
        (1.837, 0.066)
    """
    _check_independent(groups)
    areas, covariance = delong_covariance(target, first, second)
    variance = covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1]
    error = float(np.sqrt(max(variance, 0.0)))
    difference = float(areas[0] - areas[1])
    z = difference / error if error > 0 else 0.0 if difference == 0 else float(np.copysign(np.inf, difference))
    return DelongTest(float(areas[0]), float(areas[1]), error, z, float(2 * norm.sf(abs(z))))


def _check_independent(groups: ArrayLike | None) -> None:
    if groups is None:
        return
    names, counts = np.unique(np.asarray(groups), return_counts=True)
    if len(names) and counts.max() > 1:
        raise UserError(
            f"DeLong's method assumes independent samples, but group '{names[counts.argmax()]}' has {counts.max()}; "
            "use bootstrap_interval or bootstrap_difference with groups."
        )

"""Two methods on several data sets: Wilcoxon's signed-rank test, with what it can and cannot show."""

from dataclasses import dataclass

import numpy as np
import scipy.stats
from numpy.typing import ArrayLike


@dataclass(frozen=True)
class WilcoxonTest:
    """The test's result. Print it: it says whether the number of data sets allows any p below 0.05."""

    statistic: float
    """Smaller of the rank sums of the positive and negative differences."""
    p_value: float
    """Two-sided."""
    datasets: int
    """Data sets on which the methods differ; ties carry no information and are left out."""
    smallest_p: float
    """2 / 2**datasets, reached when one method wins everywhere."""

    def __str__(self) -> str:
        reach = "can never reach 0.05" if self.smallest_p > 0.05 else "can reach 0.05"
        return (
            f"Wilcoxon signed-rank: W = {self.statistic:g}, p = {self.p_value:.4g}; with {self.datasets} data sets "
            f"the smallest two-sided p is {self.smallest_p:.4g}, so the test {reach}."
        )


def wilcoxon(first: ArrayLike, second: ArrayLike) -> WilcoxonTest:
    """Test whether two methods differ over N data sets; exact for small N.

    Args:
        first: (N,) score of the first method on each data set.
        second: (N,) score of the second method.

    Returns:
        The two-sided test.

    Raises:
        ValueError: if the shapes differ or a score is not finite.

    Source: Demšar, "Statistical comparisons of classifiers over multiple data sets", JMLR 7:1-30, 2006.

    Example:
        >>> print(wilcoxon([0.81, 0.74, 0.92, 0.66, 0.70], [0.80, 0.71, 0.90, 0.62, 0.65]))
        Wilcoxon signed-rank: W = 0, p = 0.0625; with 5 data sets the smallest two-sided p is 0.0625, so the test
        can never reach 0.05.
    """
    first, second = np.asarray(first, np.float64), np.asarray(second, np.float64)
    difference = first - second if first.shape == second.shape else np.array(np.nan)
    if difference.ndim != 1 or not np.isfinite(difference).all():
        raise ValueError("first and second must be vectors of finite scores, one a data set, of the same length")
    difference = difference[difference != 0]
    if len(difference) == 0:
        return WilcoxonTest(0.0, 1.0, 0, 1.0)
    statistic, p_value = np.asarray(scipy.stats.wilcoxon(difference), np.float64)
    return WilcoxonTest(float(statistic), float(p_value), len(difference), 2.0 ** (1 - len(difference)))

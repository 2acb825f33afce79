"""Correction of p-values for multiple testing."""

import numpy as np
from numpy.typing import ArrayLike, NDArray


def holm(p_values: ArrayLike) -> NDArray[np.float64]:
    r"""Adjust p-values of m tests by Holm's step-down method, which controls the family-wise error rate.

    .. math:: \tilde p_{(i)} = \min\big(1, \max_{j \le i} (m - j + 1) \, p_{(j)}\big)

    Uniformly more powerful than Bonferroni's, under no further assumption.

    Args:
        p_values: (m,) p-values.

    Returns:
        (m,) adjusted p-values, in the order given.

    Raises:
        ValueError: if a p-value is not in [0, 1].

    Source: Holm, "A simple sequentially rejective multiple test procedure", Scand. J. Statist. 6:65-70, 1979.

    Example:
        >>> holm([0.01, 0.04, 0.03])
        array([0.03, 0.06, 0.06])
    """
    p = np.asarray(p_values, np.float64)
    if p.ndim != 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError(f"p_values must be a vector of numbers in [0, 1], got {p}")
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return adjusted

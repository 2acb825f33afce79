"""Agreement beyond chance for ordered classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from medbolt.core.stats.accuracy import weighted_mean


def quadratic_kappa(target: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Any:
    r"""Cohen's kappa with quadratic weights: the standard score of diabetic retinopathy grading.

    .. math:: \kappa = 1 - \frac{E[(t - p)^2]}{\operatorname{Var} t + \operatorname{Var} p + (E t - E p)^2}

    which equals the usual ratio of weighted confusion matrices, the denominator being the expected squared distance of
    independent t and p.

    Args:
        target: (n,) class indices, ordered and equally spaced.
        prediction: (n,) class indices.
        weight: None, (n,) or (R, n).

    Returns:
        A float or (R,) floats in [-1, 1]; NaN where target and prediction are one and the same constant.

    Source: Cohen, doi 10.1037/h0026256.

    Example:
        >>> quadratic_kappa([0, 1, 2, 3], [0, 1, 2, 2])
        0.875
    """
    t, p = np.asarray(target, np.float64), np.asarray(prediction, np.float64)
    moments = weighted_mean(np.stack([(t - p) ** 2, t**2 + p**2, t, p], axis=1), weight)
    distance, squares, mean_t, mean_p = np.moveaxis(moments, -1, 0)
    with np.errstate(invalid="ignore"):
        kappa = 1 - distance / (squares - 2 * mean_t * mean_p)
    return float(kappa) if kappa.ndim == 0 else kappa

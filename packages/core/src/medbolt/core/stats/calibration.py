"""Do probabilities mean what they say: calibration error, Brier score, reliability diagram."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medbolt.core.stats.accuracy import weighted_mean
from medbolt.core.stats.auroc import indicators


@dataclass(frozen=True)
class Reliability:
    """The bins of a reliability diagram, M bins of equal width over [0, 1]."""

    edges: NDArray[np.float64]
    """(M + 1,) edges of the bins."""
    count: NDArray[np.int64]
    """(M,) samples in each bin."""
    confidence: NDArray[np.float64]
    """(M,) mean confidence; NaN in an empty bin."""
    accuracy: NDArray[np.float64]
    """(M,) share of right answers; NaN in an empty bin."""


def reliability(target: ArrayLike, probability: ArrayLike, bins: int = 15) -> Reliability:
    """Bin samples by the probability of the predicted class.

    Args:
        target: (n,) class indices, or (n, K) 0/1 for multi-label: then every label of every sample is one answer whose
            confidence is the label's probability.
        probability: (n, K) probabilities.
        bins: Number of bins M.

    Returns:
        Counts, mean confidence and accuracy of the bins.

    Example:
        >>> reliability([0, 1], [[0.9, 0.1], [0.8, 0.2]], bins=2).accuracy
        array([nan, 0.5])
    """
    confidence, right, bin_of = _binned(target, probability, bins)
    count = np.bincount(bin_of, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(bin_of, confidence, bins) / count
        share = np.bincount(bin_of, right, bins) / count
    return Reliability(np.linspace(0, 1, bins + 1), count, mean, share)


def calibration_error(
    target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None, bins: int = 15
) -> Any:
    r"""Expected calibration error (ECE) of the predicted class.

    .. math:: \mathrm{ECE} = \sum_b \frac{|B_b|}{n} \, |\mathrm{acc}(B_b) - \mathrm{conf}(B_b)|

    over ``bins`` bins of equal width. It is biased upwards on few samples: below some 500 read it with its interval.

    Args:
        target: (n,) class indices.
        probability: (n, K) probabilities.
        weight: None, (n,) or (R, n).
        bins: Number of bins.

    Returns:
        A float or (R,) floats in [0, 1].

    Source: Naeini et al., AAAI 2015; Guo et al., arXiv 1706.04599.

    Example:
        >>> round(calibration_error([0, 1], [[0.9, 0.1], [0.8, 0.2]]), 3)  # (0.1 + 0.8) / 2
        0.45
    """
    confidence, right, bin_of = _binned(target, probability, bins)
    gap = np.where(bin_of[:, None] == np.arange(bins), (right - confidence)[:, None], 0.0)
    error = np.abs(weighted_mean(gap, weight)).sum(-1)
    return float(error) if error.ndim == 0 else error


def brier_score(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Any:
    r"""Mean squared distance of the probabilities from the truth, summed over classes.

    .. math:: \frac1n \sum_i \sum_k (p_{ik} - y_{ik})^2

    Args:
        target: (n,) class indices, or (n, K) 0/1 for multi-label.
        probability: (n, K) probabilities.
        weight: None, (n,) or (R, n).

    Returns:
        A float or (R,) floats, in [0, 2] for one class a sample. (The one-column form for two classes is half of it.)

    Source: Brier, doi 10.1175/1520-0493(1950)078<0001:VOFEIT>2.0.CO;2.

    Example:
        >>> round(brier_score([0, 1], [[0.9, 0.1], [0.8, 0.2]]), 3)
        0.65
    """
    probability = np.asarray(probability, np.float64)
    return weighted_mean(((probability - indicators(target, probability.shape[1])) ** 2).sum(1), weight)


def _binned(
    target: ArrayLike, probability: ArrayLike, bins: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    probability = np.asarray(probability, np.float64)
    target = np.asarray(target)
    if target.ndim == 2:
        confidence, right = probability.ravel(), target.ravel().astype(np.float64)
    else:
        confidence, right = probability.max(1), (probability.argmax(1) == target).astype(np.float64)
    return confidence, right, np.clip((confidence * bins).astype(np.int64), 0, bins - 1)

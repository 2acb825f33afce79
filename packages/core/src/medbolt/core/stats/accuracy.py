"""Accuracy and its kin: shares of right answers, each defined with sample weights."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from medbolt.core.stats.auroc import indicators


def weighted_mean(values: ArrayLike, weight: ArrayLike | None = None) -> Any:
    """Mean of (n,) or (n, K) values under None, (n,) or (R, n) weights; NaN where the weights sum to zero.

    Example:
        >>> weighted_mean([1.0, 2.0, 3.0], [[1, 1, 1], [0, 0, 2], [0, 0, 0]])
        array([ 2.,  3., nan])
    """
    values = np.asarray(values, np.float64)
    weights = np.ones(len(values)) if weight is None else np.asarray(weight, np.float64)
    total = weights.sum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = weights @ values / (total if values.ndim == 1 else total[..., None])
    return float(mean) if mean.ndim == 0 else mean


def accuracy(target: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Any:
    """Share of right predictions.

    Args:
        target: (n,) class indices.
        prediction: (n,) class indices.
        weight: None, (n,) or (R, n).

    Returns:
        A float or (R,) floats in [0, 1].

    Example:
        >>> accuracy([0, 1, 1, 2], [0, 1, 0, 2])
        0.75
    """
    return weighted_mean(np.asarray(target) == np.asarray(prediction), weight)


def recall(truth: ArrayLike, predicted: ArrayLike, weight: ArrayLike | None = None) -> Any:
    """Share of the true members of a class that were found (sensitivity); NaN if there are none.

    Args:
        truth: (n,) 0 or 1, or bool.
        predicted: (n,) 0 or 1, or bool.
        weight: None, (n,) or (R, n).

    Returns:
        A float or (R,) floats in [0, 1].

    Example:
        >>> recall([1, 1, 0, 0], [1, 0, 1, 0])
        0.5
    """
    members = np.asarray(truth, np.bool_)
    return weighted_mean(np.asarray(predicted, np.bool_)[members], _columns(weight, members))


def precision(truth: ArrayLike, predicted: ArrayLike, weight: ArrayLike | None = None) -> Any:
    """Share of the predicted members of a class that are in it (positive predictive value); NaN if none is predicted.

    Args and returns as :func:`recall`.

    Example:
        >>> precision([1, 1, 0, 0], [1, 1, 1, 1])
        0.5
    """
    return recall(predicted, truth, weight)


def balanced_accuracy(target: ArrayLike, prediction: ArrayLike, weight: ArrayLike | None = None) -> Any:
    """Mean recall over the classes that ``target`` has.

    A class that is predicted but never true has no recall and does not enter; torchmetrics' macro accuracy counts it
    as zero, which lowers the score of small test sets and of single domains.

    Args:
        target: (n,) class indices.
        prediction: (n,) class indices.
        weight: None, (n,) or (R, n). A class without weight makes the result NaN, so a bootstrap discards it.

    Returns:
        A float or (R,) floats in [0, 1].

    Example:
        >>> balanced_accuracy([0, 0, 0, 1], [0, 0, 2, 1])  # 2 is predicted, never true
        0.8333...
    """
    target, prediction = np.asarray(target), np.asarray(prediction)
    recalls = [recall(target == label, prediction == label, weight) for label in np.unique(target)]
    mean = np.mean(recalls, axis=0) if recalls else np.float64(np.nan)
    return float(mean) if mean.ndim == 0 else mean


def confusion_matrix(target: ArrayLike, prediction: ArrayLike, classes: int) -> NDArray[np.int64]:
    """Count samples by true class (rows) and predicted class (columns).

    Args:
        target: (n,) class indices.
        prediction: (n,) class indices.
        classes: Number of classes K.

    Returns:
        (K, K) counts.

    Example:
        >>> confusion_matrix([0, 0, 1], [0, 1, 1], 2)
        array([[1, 1],
               [0, 1]])
    """
    return indicators(target, classes).T.astype(np.int64) @ indicators(prediction, classes).astype(np.int64)


def _columns(weight: ArrayLike | None, members: NDArray[np.bool_]) -> NDArray | None:
    return None if weight is None else np.asarray(weight)[..., members]

"""Area under the ROC curve, for one class and averaged over classes."""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auroc(target: ArrayLike, score: ArrayLike, weight: ArrayLike | None = None) -> Any:
    r"""Probability that a positive scores above a negative, ties counting one half.

    .. math:: A = \frac{1}{mn} \sum_{i \in P} \sum_{j \in N} \big([s_i > s_j] + \tfrac12 [s_i = s_j]\big)

    Args:
        target: (n,) 0 or 1, or bool.
        score: (n,) higher means positive; any scale.
        weight: (n,) or (R, n) weights of the samples: one area for each of R weightings. None weighs all equally.

    Returns:
        The area, a float or (R,) floats in [0, 1]; NaN where the positives or the negatives have no weight.

    Raises:
        ValueError: if ``target`` holds anything but 0 and 1, or ``score`` a NaN.

    Example:
        >>> auroc([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8])
        0.75
    """
    positive, score = binary_scores(target, score)
    weights = np.ones(len(score)) if weight is None else np.asarray(weight, np.float64)
    negatives = np.flatnonzero(~positive)
    negatives = negatives[np.argsort(score[negatives], kind="stable")]
    positives = np.flatnonzero(positive)

    below = np.zeros((*weights.shape[:-1], len(negatives) + 1))
    np.cumsum(weights[..., negatives], axis=-1, out=below[..., 1:])
    first = np.searchsorted(score[negatives], score[positives], side="left")
    last = np.searchsorted(score[negatives], score[positives], side="right")
    weight_of_positives = weights[..., positives]
    beaten = (weight_of_positives * (below[..., first] + below[..., last])).sum(-1) / 2
    with np.errstate(invalid="ignore"):
        area = beaten / (weight_of_positives.sum(-1) * below[..., -1])
    return float(area) if weights.ndim == 1 else area


def class_auroc(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> NDArray[np.float64]:
    """AUROC of each class against the rest.

    Args:
        target: (n,) class indices, or (n, K) 0/1 for multi-label.
        probability: (n, K) scores.
        weight: None, (n,) or (R, n).

    Returns:
        (K,) or (R, K); NaN for a class that has no positives or no negatives.

    Example:
        >>> class_auroc([0, 1, 1], [[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.4, 0.6, 0.0]])
        array([ 1.,  1., nan])
    """
    probability = np.asarray(probability)
    truth = indicators(target, probability.shape[1])
    return np.stack([auroc(truth[:, k], probability[:, k], weight) for k in range(truth.shape[1])], axis=-1)


def macro_auroc(target: ArrayLike, probability: ArrayLike, weight: ArrayLike | None = None) -> Any:
    """Mean over classes of the AUROC of one class against the rest.

    Classes that ``target`` lacks are left out of the mean (``np.isfinite(class_auroc(...))`` tells which); a class
    that is there but has no weight makes the result NaN, so a bootstrap discards that replicate.

    Args:
        target: (n,) class indices, or (n, K) 0/1 for multi-label.
        probability: (n, K) scores.
        weight: None, (n,) or (R, n).

    Returns:
        A float or (R,) floats; NaN if fewer than two classes are there.

    Example:
        >>> macro_auroc([0, 1, 1, 0], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5, 0.5]])
        0.75
    """
    probability = np.asarray(probability)
    truth = indicators(target, probability.shape[1])
    defined = truth.any(0) & ~truth.all(0)
    if not defined.any():
        return np.nan if weight is None or np.ndim(weight) == 1 else np.full(len(np.asarray(weight)), np.nan)
    mean = class_auroc(truth[:, defined], probability[:, defined], weight).mean(-1)
    return float(mean) if mean.ndim == 0 else mean


def indicators(target: ArrayLike, classes: int) -> NDArray[np.bool_]:
    """Return (n, K) bool class membership of (n,) class indices or (n, K) 0/1 labels.

    Example:
        >>> indicators([0, 2], 3)
        array([[ True, False, False],
               [False, False,  True]])
    """
    target = np.asarray(target)
    if target.ndim == 1:
        if len(target) and not (target.min() >= 0 and target.max() < classes):
            raise ValueError(f"target must be in 0 to {classes - 1}, got {target.min()} to {target.max()}")
        return target[:, None] == np.arange(classes)
    if target.shape[1] != classes:
        raise ValueError(f"target must have {classes} columns, got {target.shape[1]}")
    return _binary(target)


def binary_scores(target: ArrayLike, score: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[Any]]:
    """Return (n,) positives and their (n,) scores as arrays.

    Raises:
        ValueError: if ``target`` holds anything but 0 and 1, or ``score`` a NaN or another number of samples.

    Example:
        >>> binary_scores([0, 1], [0.2, 0.7])
        (array([False,  True]), array([0.2, 0.7]))
    """
    positive, score = _binary(target), np.asarray(score)
    if score.shape != positive.shape:
        raise ValueError(f"score must have the shape of target {positive.shape}, got {score.shape}")
    if np.isnan(score).any():
        raise ValueError(f"score of sample {int(np.isnan(score).argmax())} is NaN")
    return positive, score


def _binary(target: ArrayLike) -> NDArray[np.bool_]:
    target = np.asarray(target)
    if target.dtype != np.bool_ and not np.isin(target, (0, 1)).all():
        raise ValueError("a binary target must hold nothing but 0 and 1")
    return target.astype(np.bool_)

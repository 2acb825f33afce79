"""Estimate a transition matrix from the samples a network is surest of, and measure how wrong an estimate is."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class TransitionEstimate:
    """A transition matrix found from predictions, and how far to trust it.

    Args:
        transition: (K, K) float64; row i says what becomes of class i.
        anchors: By class, the positions of the samples its row is the mean of.
        without_anchor: Classes whose row preferred another class so clearly that its diagonal was raised: rare ones
            that the network never predicts. Their rows are guesses.
        condition: Condition number of the matrix; corrections that invert it amplify errors by up to this factor.
        min_diagonal: Smallest diagonal entry.

    Example:
        >>> estimate_transition(torch.tensor([[0.75, 0.25], [0.125, 0.875]]), outlier_percentile=None).min_diagonal
        0.75
    """

    transition: Tensor
    anchors: list[list[int]]
    without_anchor: list[int]
    condition: float
    min_diagonal: float


def estimate_transition(
    probabilities: Tensor, outlier_percentile: float | None = 97.0, top_m: int = 1
) -> TransitionEstimate:
    r"""Take the predictions for the most typical sample of each class, its anchor, as the row of that class.

    .. math:: \hat T_{ij} = \eta_j(\bar x_i), \qquad \bar x_i = \arg\max_x \eta_i(x)

    :math:`\eta` are the probabilities of the *noisy* labels that a network learnt with plain cross entropy gives the
    training samples, without augmentation and in evaluation mode. Where a class has a sample that surely belongs to it,
    these are its row. A class without one gets the row of another, so a diagonal below half of the largest other entry
    of the row is raised to that half and the row normalised again; the class is reported.

    Args:
        probabilities: (N, K) float, rows that sum to 1.
        outlier_percentile: Leave out samples at or above this percentile of a class's probability, in (0, 100];
            ``None`` takes the surest. Without it one odd sample decides; with it rows of rare classes (a smaller share
            than is left out) come from other classes' samples.
        top_m: Mean of this many samples a class, at least 1.

    Raises:
        ValueError: if an argument is out of range, or the probabilities are not (N, K) finite and non-negative.

    Cost: K sorts of N numbers.

    Source: Patrini et al., arXiv 1609.03683, with the percentile of its code and of that of Xia et al., arXiv
    1906.00189. Public code divides columns by the sums of rows when it normalises, and has neither ``top_m`` nor the
    repair of missing anchors.

    Example:
        >>> clean = torch.linspace(0, 1, 101)
        >>> noisy = torch.stack([0.8 * clean + 0.3 * (1 - clean), 0.2 * clean + 0.7 * (1 - clean)], dim=1)
        >>> estimate_transition(noisy, outlier_percentile=None).transition
        tensor([[0.8000, 0.2000],
                [0.3000, 0.7000]], dtype=torch.float64)
    """
    if outlier_percentile is not None and not 0 < outlier_percentile <= 100:
        raise ValueError(f"outlier_percentile must be in (0, 100], got {outlier_percentile}")
    if top_m < 1:
        raise ValueError(f"top_m must be at least 1, got {top_m}")
    if probabilities.ndim != 2 or not len(probabilities) or probabilities.shape[1] < 2:
        raise ValueError(f"probabilities must be (N, K) with N >= 1 and K >= 2, got {tuple(probabilities.shape)}")
    p = probabilities.detach().double()
    if not p.isfinite().all() or (p < 0).any():
        raise ValueError("probabilities must be finite and not negative")
    anchors = [_anchors(of_class, outlier_percentile, top_m) for of_class in p.T]
    matrix = _normalized(torch.stack([p[rows].mean(0) for rows in anchors]))
    diagonal = matrix.diagonal()
    least = 0.5 * matrix.clone().fill_diagonal_(0).amax(1)
    missing = diagonal < least
    matrix = _normalized(matrix.clone().diagonal_scatter(torch.maximum(diagonal, least)))
    return TransitionEstimate(
        matrix,
        [rows.tolist() for rows in anchors],
        missing.nonzero().flatten().tolist(),
        float(torch.linalg.cond(matrix)),
        float(matrix.diagonal().min()),
    )


def transition_error(estimate: Tensor, transition: Tensor) -> float:
    r"""Return how far an estimated transition matrix is from the true one.

    .. math:: \frac{\sum_{ij} |\hat T_{ij} - T_{ij}|}{\sum_{ij} |T_{ij}|}

    Args:
        estimate: (K, K).
        transition: (K, K); rows with NaN, of classes without samples, do not count.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> transition_error(torch.eye(2), torch.tensor([[0.75, 0.25], [0.0, 1.0]]))
        0.25
    """
    if estimate.shape != transition.shape:
        raise ValueError(f"matrices of {tuple(estimate.shape)} and {tuple(transition.shape)} cannot be compared")
    truth = transition.detach().double().cpu()
    known = ~truth.isnan().any(1)
    error = (estimate.detach().double().cpu() - truth)[known].abs().sum()
    return float(error / truth[known].abs().sum())


def _anchors(of_class: Tensor, outlier_percentile: float | None, top_m: int) -> Tensor:
    """Return the positions of the largest probabilities below the percentile; of all where none is below."""
    order = of_class.argsort(descending=True, stable=True)
    if outlier_percentile is not None:
        # not torch.quantile, which refuses more than 2**24 numbers
        limit = of_class[order[int((len(order) - 1) * (100 - outlier_percentile) / 100)]]
        below = order[of_class[order] < limit]
        order = below if len(below) else order
    return order[:top_m]


def _normalized(matrix: Tensor) -> Tensor:
    return matrix / matrix.sum(1, keepdim=True)

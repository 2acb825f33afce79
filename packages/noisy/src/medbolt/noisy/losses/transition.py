"""The matrix that says which labels become which, as the losses need it."""

import torch
from torch import Tensor

TransitionMatrix = list[list[float]] | Tensor
"""K rows of K probabilities: entry [i, j] is the probability that a sample of class i is labelled j."""


def as_transition(transition: TransitionMatrix) -> Tensor:
    """Check a transition matrix.

    Args:
        transition: K rows of K probabilities that sum to 1.

    Returns:
        (K, K) float64.

    Raises:
        ValueError: naming the first row that is none.

    Example:
        >>> as_transition([[0.9, 0.1], [0.3, 0.7]]).diagonal()
        tensor([0.9000, 0.7000], dtype=torch.float64)
    """
    lengths = {len(row) for row in transition}
    if lengths != {len(transition)}:
        raise ValueError(f"a transition matrix is square, got {len(transition)} rows of {sorted(lengths)} entries")
    matrix = torch.as_tensor(transition, dtype=torch.float64)
    wrong = (matrix < 0).any(1) | ~torch.isclose(matrix.sum(1), torch.ones((), dtype=torch.float64), atol=1e-4)
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise ValueError(
            f"row {row} of the transition matrix, {matrix[row].tolist()}, must be probabilities that sum to 1"
        )
    return matrix


def noisy_probability(log_p: Tensor, transition: Tensor) -> Tensor:
    r"""Return the probabilities of the noisy labels, :math:`T^\top p`, bounded away from zero by the smallest float.

    Args:
        log_p: (B, K, ...) log-probabilities of the true classes.
        transition: (K, K).

    Returns:
        (B, K, ...).

    Raises:
        ValueError: if there are other than K classes.

    Example:
        >>> noisy_probability(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([[1.0, 0.0], [0.4, 0.6]]))
        tensor([[0.7000, 0.3000]])
    """
    return mixed(transition.T, log_p.exp()).clamp(min=torch.finfo(log_p.dtype).tiny)


def mixed(matrix: Tensor, values: Tensor) -> Tensor:
    r"""Return :math:`\sum_j M_{ij} v_{bj}` in the precision of the values, under autocast too.

    Args:
        matrix: (K, K).
        values: (B, K, ...) float.

    Returns:
        (B, K, ...).

    Raises:
        ValueError: if there are other than K values.

    Example:
        >>> mixed(torch.tensor([[1.0, 1.0], [0.0, 2.0]]), torch.tensor([[3.0, 4.0]]))
        tensor([[7., 8.]])
    """
    if values.shape[1] != len(matrix):
        raise ValueError(f"the transition matrix has {len(matrix)} classes, the logits have {values.shape[1]}")
    with torch.autocast(values.device.type, enabled=False):
        return torch.einsum("ij,bj...->bi...", matrix.to(values), values)

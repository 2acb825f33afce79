"""The noise rate of a data set, from labels and predictions."""

from torch import Tensor

from medbolt.noisy.quality.confident_joint import confident_joint


def estimate_noise_rate(labels: Tensor, probabilities: Tensor) -> float:
    """Estimate the share of wrong labels by confident learning: a ``forget_rate`` for small-loss selection.

    Args:
        labels: (N,) int64 given labels.
        probabilities: (N, K) float. Out of sample (``medbolt issues``) the estimate is consistent for class-conditional
            noise; of the training samples themselves it falls towards 0 as the network memorizes them.

    Returns:
        The share, in [0, 1].

    Raises:
        ValueError: if there is no sample, or shapes or labels do not fit.

    Source: Northcutt et al., arXiv 1911.00068: one minus the trace of the estimated joint.

    Example:
        >>> import torch
        >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
        >>> estimate_noise_rate(torch.tensor([0, 0, 0, 1]), p)
        0.25
        >>> from medbolt.noisy import CoTeaching
        >>> callback = CoTeaching(forget_rate=estimate_noise_rate(torch.tensor([0, 0, 0, 1]), p))
    """
    return confident_joint(labels, probabilities).noise_rate

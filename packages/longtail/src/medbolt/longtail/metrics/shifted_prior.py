"""Accuracy on test sets of any class frequencies, from the recalls on one."""

from collections.abc import Sequence

import torch
from torch import Tensor


def shifted_prior_accuracy(recall: Tensor, prior: Sequence[float] | Tensor) -> Tensor:
    r"""Return the accuracy that recalls amount to where classes have other frequencies.

    .. math:: A = \sum_c \pi_c R_c

    It is what a test set drawn with these frequencies would give on average, without drawing one: the forward,
    uniform and backward long tails of test-agnostic evaluation.

    Args:
        recall: (C,) recall of each class, as :class:`~medbolt.core.ClassRecall` gives it; a class with NaN is left out.
        prior: (C,) frequencies, not negative, of any scale.

    Returns:
        () accuracy; NaN if no class with a recall has a frequency.

    Raises:
        ValueError: if the two differ in length, or a frequency is negative.

    Source: the protocol of Zhang et al., arXiv 2107.09249 (SADE), and Hong et al., arXiv 2012.00321 (LADE), who
    resample the test set.

    Example:
        >>> recall = torch.tensor([0.9, 0.5])
        >>> shifted_prior_accuracy(recall, [9, 1]), shifted_prior_accuracy(recall, [1, 9])
        (tensor(0.8600), tensor(0.5400))
    """
    weight = torch.as_tensor(prior, dtype=recall.dtype, device=recall.device)
    if weight.shape != recall.shape or (weight < 0).any():
        raise ValueError(f"prior must hold one frequency a class, {len(recall)} in all, none negative, got {prior}")
    weight = weight.where(~recall.isnan(), 0.0)
    return (weight * recall.nan_to_num()).sum() / weight.sum()

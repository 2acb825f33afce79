"""Backward correction: undo the noise in the losses."""

import math

import torch
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.targets import expected, log_probability
from medbolt.noisy.losses.transition import TransitionMatrix, as_transition, mixed


class BackwardCorrectedLoss(nn.Module):
    r"""Combine the cross entropies of all labels so that their mean over the noise is that of the true label.

    .. math:: \ell_i = \sum_j (T^{-1})_{y_i j}\, \min(-\log p_{ij}, m)

    Unbiased, but of high variance: :math:`T^{-1}` has negative entries, so wrong labels can be paid for being
    improbable, at most ``largest`` each. Where the choice is free take :class:`ForwardCorrectedLoss`.

    Args:
        transition: Transition matrix T, K rows of K probabilities: ``transition[i][j]`` is the probability that class i
            is labelled j.
        largest: The most that one label costs, m; by default -log 1e-7.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, K, ...) float; target (B, ...) int64 class indices or (B, K, ...) float probabilities; output () or
        (B, ...).

    Raises:
        ValueError: if ``transition`` is not square, a row does not sum to 1, or it is singular or nearly so (condition
            number above 1e6); if ``largest`` is not positive; at the call, if the logits have other than K classes.

    State, cost: the inverse matrix, a buffer; one softmax and one row of the inverse a sample.

    Source: Patrini et al., arXiv 1609.03683, theorem 1. As in public code the losses are bounded, without which
    training diverges.

    Example:
        >>> loss = BackwardCorrectedLoss([[0.75, 0.25], [0.25, 0.75]], reduction="none")
        >>> loss(torch.zeros(1, 2), torch.tensor([1]))  # both labels cost log 2, and the rows of the inverse sum to 1
        tensor([0.6931])
    """

    inverse: Tensor

    one_class_a_sample = True

    def __init__(
        self, transition: TransitionMatrix, largest: float = -math.log(1e-7), reduction: Reduction = "mean"
    ) -> None:
        super().__init__()
        matrix = as_transition(transition)
        if not (condition := float(torch.linalg.cond(matrix))) <= 1e6:
            raise ValueError(
                f"the transition matrix cannot be inverted (condition number {condition:.1e}): two classes are "
                "labelled alike; use ForwardCorrectedLoss or another matrix"
            )
        if largest <= 0:
            raise ValueError(f"largest must be positive, got {largest}")
        self.register_buffer("inverse", torch.linalg.inv(matrix).float())
        self.largest, self.reduction = largest, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        losses = (-log_probability(logits)).clamp(max=self.largest)
        return reduce(expected(mixed(self.inverse, losses), target), self.reduction)

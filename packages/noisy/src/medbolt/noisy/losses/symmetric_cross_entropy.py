"""Symmetric cross entropy: cross entropy both ways, of which the reverse one tolerates noise."""

import math

from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.targets import expected, log_probability


def reverse_cross_entropy(log_p: Tensor, target: Tensor, log_zero: float) -> Tensor:
    r"""Return the cross entropy of the labels under the predictions, :math:`-\sum_k p_k \log t_k`, per sample.

    For hard labels it is :math:`-A\,(1 - p_y)`.

    Args:
        log_p: (B, C, ...) float log-probabilities of the prediction.
        target: (B, ...) int64 class indices, or (B, C, ...) float probabilities.
        log_zero: The A that stands for the logarithm of label probabilities down to zero.

    Returns:
        (B, ...).

    Example:
        >>> reverse_cross_entropy(torch.tensor([[0.75, 0.25]]).log(), torch.tensor([0]), log_zero=-4)
        tensor([1.])
    """
    if target.is_floating_point():
        return -(log_p.exp() * target.to(log_p).clamp(min=math.exp(log_zero)).log()).sum(1)
    return -log_zero * (1 - expected(log_p, target).exp())


class SymmetricCrossEntropyLoss(nn.Module):
    r"""Add to cross entropy the reverse cross entropy, in which prediction and label change places.

    .. math:: \ell_i = -\alpha \log p_{i,y_i} - \beta \sum_k p_{ik} \log e_{y_i k}, \qquad \log 0 := A

    The second term is :math:`-\beta A (1 - p_{i,y_i})`, a scaled mean absolute error that noise biases little; the
    first makes the network learn the hard classes.

    Args:
        alpha: Weight of cross entropy: 0.1 for easy data, 6 for a hundred classes.
        beta: Weight of reverse cross entropy: 1 for easy data, 0.1 for a hundred classes.
        log_zero: The negative A that stands for log 0; by default log 1e-4.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C, ...) float; target (B, ...) int64 class indices or (B, C, ...) float probabilities; output () or
        (B, ...).

    Raises:
        ValueError: if a weight is negative, or ``log_zero`` is not.

    State, cost: none; one softmax.

    Source: Wang et al., arXiv 1908.06112, eq. 7. Public code clamps p at 1e-7 in the reverse term; here nothing of p is
    clamped, so every sample keeps its gradient.

    Example:
        >>> loss = SymmetricCrossEntropyLoss(alpha=1, beta=1, log_zero=-4)
        >>> loss(torch.zeros(1, 2), torch.tensor([0])).item()  # log 2 + 4 / 2
        2.6931...
    """

    one_class_a_sample = True

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        log_zero: float = math.log(1e-4),
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__()
        if min(alpha, beta) < 0:
            raise ValueError(f"alpha and beta must not be negative, got {alpha} and {beta}")
        if log_zero >= 0:
            raise ValueError(f"log_zero must be negative, got {log_zero}")
        self.alpha, self.beta, self.log_zero, self.reduction = alpha, beta, log_zero, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        log_p = log_probability(logits)
        forward, reverse = -expected(log_p, target), reverse_cross_entropy(log_p, target, self.log_zero)
        return reduce(self.alpha * forward + self.beta * reverse, self.reduction)

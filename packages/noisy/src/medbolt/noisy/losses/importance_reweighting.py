"""Importance reweighting: each label counts by how probable it is to be the true one."""

from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.targets import expected, log_probability
from medbolt.noisy.losses.transition import TransitionMatrix, as_transition, noisy_probability


class ImportanceReweightedLoss(nn.Module):
    r"""Weigh cross entropy by the ratio of clean and noisy label probabilities.

    .. math:: \ell_i = -\beta_i \log p_{i,y_i}, \qquad \beta_i = \frac{p_{i,y_i}}{(T^\top p_i)_{y_i}}

    The weight has no gradient. A label that the network finds improbable, but the noise explains, counts little. A
    fresh network weighs all labels alike; start from one that was trained for some epochs.

    Args:
        transition: Transition matrix T, K rows of K probabilities: ``transition[i][j]`` is the probability that class i
            is labelled j.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``; the mean is over samples, not over weights.

    Shapes:
        logits (B, K, ...) float; target (B, ...) int64 class indices or (B, K, ...) float probabilities, for which it
        is the mean over labels drawn from them; output () or (B, ...).

    Raises:
        ValueError: if ``transition`` is not square or a row does not sum to 1; at the call, if the logits have other
            than K classes.

    State, cost: the matrix, a buffer; one softmax and one product with T.

    Source: Liu and Tao, arXiv 1411.7718; the second stage of T-Revision, Xia et al., arXiv 1906.00189.

    Example:
        >>> loss = ImportanceReweightedLoss([[0.6, 0.4], [0.4, 0.6]], reduction="none")
        >>> logits = torch.tensor([[2.0, -2.0], [2.0, -2.0]])
        >>> loss(logits, torch.tensor([0, 1]))  # cross entropy gives 0.0181 and 4.0181
        tensor([0.0299, 0.1791])
    """

    transition: Tensor

    one_class_a_sample = True

    def __init__(self, transition: TransitionMatrix, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.register_buffer("transition", as_transition(transition).float())
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        log_p = log_probability(logits)
        known = log_p.detach()
        weight = known.exp() / noisy_probability(known, self.transition)
        return reduce(-expected(weight * log_p, target), self.reduction)

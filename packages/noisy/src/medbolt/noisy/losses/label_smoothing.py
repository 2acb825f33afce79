"""Label smoothing: labels that admit to be wrong now and then."""

from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.targets import expected, log_probability


class LabelSmoothingLoss(nn.Module):
    r"""Cross entropy with labels mixed with the uniform distribution.

    .. math:: \ell_i = -(1 - \epsilon) \log p_{i,y_i} - \frac{\epsilon}{K} \sum_k \log p_{ik}

    It keeps the network from being certain of any label, wrong ones included. LNMBench's baseline called "CE" is this.

    Args:
        epsilon: Share of the uniform distribution, in [0, 1].
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C, ...) float; target (B, ...) int64 class indices or (B, C, ...) float probabilities; output () or
        (B, ...).

    Raises:
        ValueError: if ``epsilon`` is outside [0, 1].

    State, cost: none; one softmax.

    Source: Szegedy et al., arXiv 1512.00567; under label noise Lukasik et al., arXiv 2003.02819.

    Example:
        >>> LabelSmoothingLoss(0.1)(torch.tensor([[2.0, 0.0]]), torch.tensor([0])).item()  # log(1 + e**-2) + 0.05 * 2
        0.2269...
    """

    one_class_a_sample = True

    def __init__(self, epsilon: float = 0.1, reduction: Reduction = "mean") -> None:
        super().__init__()
        if not 0 <= epsilon <= 1:
            raise ValueError(f"epsilon must be in [0, 1], got {epsilon}")
        self.epsilon, self.reduction = epsilon, reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        log_p = log_probability(logits)
        losses = (1 - self.epsilon) * expected(log_p, target) + self.epsilon * log_p.mean(1)
        return reduce(-losses, self.reduction)

"""Forward correction: predict the true class, compare what noise would have made of it."""

from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.noisy.losses.targets import expected, log_probability
from medbolt.noisy.losses.transition import TransitionMatrix, as_transition, noisy_probability


class ForwardCorrectedLoss(nn.Module):
    r"""Cross entropy of the noisy labels under the predictions passed through the noise.

    .. math:: \ell_i = -\log (T^\top p_i)_{y_i}

    Its minimiser over noisy labels is that of cross entropy over clean ones, where T is right and invertible. The
    network predicts clean labels: use its plain softmax for them.

    Args:
        transition: Transition matrix T, K rows of K probabilities: ``transition[i][j]`` is the probability that class i
            is labelled j.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, K, ...) float; target (B, ...) int64 class indices or (B, K, ...) float probabilities; output () or
        (B, ...).

    Raises:
        ValueError: if ``transition`` is not square or a row does not sum to 1; at the call, if the logits have other
            than K classes.

    State, cost: the matrix, a buffer; one softmax and one product with T.

    Source: Patrini et al., arXiv 1609.03683, theorem 2. Public code clamps the probability at 1e-7 and stops the
    gradient below; here at the smallest float32, about 1e-38.

    Example:
        >>> loss = ForwardCorrectedLoss([[0.6, 0.4], [0.4, 0.6]])
        >>> loss(torch.tensor([[9.0, -9.0]]), torch.tensor([1])).exp().reciprocal()  # sure of 0, which becomes 1
        tensor(0.4000)
    """

    transition: Tensor

    one_class_a_sample = True

    def __init__(self, transition: TransitionMatrix, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.register_buffer("transition", as_transition(transition).float())
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        noisy = noisy_probability(log_probability(logits), self.transition)
        return reduce(-expected(noisy.log(), target), self.reduction)

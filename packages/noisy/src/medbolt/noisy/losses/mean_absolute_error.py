"""Mean absolute error: the loss that symmetric noise cannot bias."""

from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce, target_probability


class MeanAbsoluteErrorLoss(nn.Module):
    r"""Half the absolute difference of prediction and one-hot label: the probability of any other class.

    .. math:: \ell_i = \tfrac{1}{2} \lVert p_i - e_{y_i} \rVert_1 = 1 - p_{i,y_i}

    Its sum over all labels is constant, so that symmetric noise leaves its minimiser where it was. The price is a
    gradient that vanishes for whatever the network does not expect yet: with more than about ten classes it hardly
    trains. :class:`ActivePassiveLoss` and :class:`GeneralizedCrossEntropyLoss` pay less.

    Args:
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C, ...) float; target (B, ...) int64 class indices or (B, C, ...) float probabilities, for which it
        is the mean over labels drawn from them; output () or (B, ...).

    State, cost: none; one softmax.

    Source: Ghosh et al., arXiv 1712.09482, who use twice this value.

    Example:
        >>> MeanAbsoluteErrorLoss()(torch.zeros(1, 4), torch.tensor([2]))
        tensor(0.7500)
    """

    one_class_a_sample = True

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss of the batch."""
        return reduce(1 - target_probability(logits, target), self.reduction)

"""Influence-balanced loss: samples that pull hard on the decision boundary count less."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.errors import UserError
from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.inputs import class_logits, precise
from medbolt.longtail.losses.weights import class_weights


class InfluenceBalancedLoss(ClassCountsLoss):
    r"""Divide a sample's cross entropy by its influence on the last layer, and weigh classes inversely.

    .. math::
        \ell_i = \frac{\lambda_{y_i}}{\|p_i - y_i\|_1 \|h_i\|_1 + \epsilon}\, \mathrm{CE}(z_i, y_i), \qquad
        \lambda_c = \frac{\alpha\, n_c^{-1}}{\frac{1}{C}\sum_k n_k^{-1}}

    The gradient of the last linear layer has the 1-norm :math:`\|p_i - y_i\|_1 \|h_i\|_1`, h being its input: samples
    of large gradient, to which the boundary is overfitted, are held back. The factor is taken as a constant. Use it to
    fine-tune after a phase of cross entropy; from scratch it starts slowly.

    Args:
        alpha: Factor of the class weights, positive. The paper's 1000 balances features of 1-norm about 1000.
        epsilon: Bounds the factor, positive.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; features (B, D) float, the
        input of the last layer. Without features :math:`\|h_i\|_1` is 1: the influence on the last layer's bias. Output
        () or (B,).

    Raises:
        ValueError: if ``alpha`` or ``epsilon`` is not positive.
        UserError: if there is not one row of features a sample.

    State, cost: none; one softmax.

    Source: Park et al., arXiv 2110.02444. The public code lets gradients pass through the factor, which
    rewards a large influence; here they do not. An empty class has weight 0.

    Example:
        >>> loss = InfluenceBalancedLoss(class_counts=[3, 1], epsilon=1e-9, reduction="none")
        >>> loss(torch.zeros(2, 2), torch.tensor([0, 1]))  # |p - y| is 1: log(2) times 0.5 and 1.5
        tensor([0.3466, 1.0397])
    """

    one_class_a_sample = True

    def __init__(
        self,
        alpha: float = 1.0,
        epsilon: float = 1e-3,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        if alpha <= 0 or epsilon <= 0:
            raise ValueError(f"alpha and epsilon must be positive, got {alpha} and {epsilon}")
        self.alpha, self.epsilon = alpha, epsilon

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the weights, (C,)."""
        return self.alpha * class_weights(counts, "inverse")

    def forward(self, logits: Tensor, target: Tensor, features: Tensor | None = None) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        weights = self.of_classes(logits)
        if target.is_floating_point():
            losses = F.cross_entropy(logits, target, weights, reduction="none")
            influence = (logits.detach().softmax(1) - target).abs().sum(1)
        else:
            nll = cross_entropy(logits, target)
            losses, influence = weights[target] * nll, -2 * torch.expm1(-nll.detach())
        if features is not None:
            if features.ndim != 2 or len(features) != len(logits):
                raise UserError(
                    f"InfluenceBalancedLoss got features of shape {tuple(features.shape)} for {len(logits)} samples; "
                    "give the (B, D) input of the last layer."
                )
            influence = influence * precise(features.detach()).abs().sum(1)
        return reduce(losses / (influence + self.epsilon), self.reduction)

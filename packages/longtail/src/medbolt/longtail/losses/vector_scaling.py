"""Vector scaling (VS): logit adjustment by addition and by multiplication at once."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction
from medbolt.longtail.losses.class_counts import ClassCountsLoss, log_prior
from medbolt.longtail.losses.inputs import class_logits


class VectorScalingLoss(ClassCountsLoss):
    r"""Scale the logits of rare classes down and shift them down while training.

    .. math:: \ell_i = \mathrm{CE}(\Delta \odot z_i + \iota,\ y_i), \qquad
        \Delta_c = (n_c / n_{\max})^\gamma, \quad \iota_c = \tau \log \pi_c

    The shift acts early in training, the scale in its terminal phase, where the shift alone loses its effect. The
    network predicts with its plain logits. ``gamma=0`` is :class:`~medbolt.longtail.LogitAdjustedLoss`, ``tau=0`` is
    class-dependent temperature (CDT, arXiv 2001.01385).

    Args:
        gamma: Exponent of the scale, not negative.
        tau: Strength of the shift.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; output () or (B,).

    Raises:
        ValueError: if ``gamma`` is negative.

    State, cost: none; one softmax.

    Source: Kini et al., arXiv 2103.01550, defaults of the authors' code. An empty class counts as one sample.

    Example:
        >>> loss = VectorScalingLoss(gamma=0.5, tau=0.0, class_counts=[4, 1], reduction="none")
        >>> loss(torch.tensor([[0.0, 2.0]]), torch.tensor([1]))  # log(1 + e**-1)
        tensor([0.3133])
    """

    one_class_a_sample = True

    def __init__(
        self,
        gamma: float = 0.3,
        tau: float = 1.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        if gamma < 0:
            raise ValueError(f"gamma must not be negative, got {gamma}")
        self.gamma, self.tau = gamma, tau

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the scale and the shift, (2, C)."""
        counts = counts.clamp(min=1)
        return torch.stack([(counts / counts.max()) ** self.gamma, self.tau * log_prior(counts)])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        scale, shift = self.of_classes(logits)
        return cross_entropy(logits, target, shift, scale, reduction=self.reduction)

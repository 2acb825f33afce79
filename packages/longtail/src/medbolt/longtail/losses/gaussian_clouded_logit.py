"""Gaussian clouded logits (GCL): noise on the logits of rare classes keeps their features apart."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medbolt.core.cross_entropy import cross_entropy
from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.focal import check_gamma
from medbolt.longtail.losses.inputs import class_logits


class GaussianCloudedLogitLoss(ClassCountsLoss):
    r"""Lower the logits while training by random amounts, larger for rarer classes.

    .. math::
        \ell_i = (1 - p_i)^\gamma\, c_i, \quad p_i = e^{-c_i}, \quad
        c_i = \mathrm{CE}\!\left(z_{ic} - s \kappa |\varepsilon_{ic}| \frac{\delta_c}{\delta_{\max}},\ y_i\right), \\
        \delta_c = \log n_{\max} - \log n_c, \quad
        \varepsilon_{ic} \sim \mathcal N(0, 1/9)\ \text{clipped to}\ [-1, 1]

    The cloud around a rare class makes its samples reach further before they are right. The focal factor, which the
    authors use in the second stage, has no gradient of its own. In evaluation mode there is no noise. As in
    :class:`~medbolt.longtail.LDAMLoss`, ``scale`` is the s that a cosine head has already put on its logits; with an
    ordinary linear head take ``scale=1``.

    Args:
        noise: Amplitude :math:`\kappa`, not negative. The authors use 0.5 for CIFAR and 1 for Places.
        scale: Scale s of the head's cosines, positive; 1 for a linear head.
        gamma: Focusing exponent :math:`\gamma`, not negative: 0 in the first stage, the authors' 1 in the second.
        class_counts: Training samples of each class; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B,) int64 class indices or (B, C) float probabilities; output () or (B,).

    Raises:
        ValueError: if ``noise`` or ``gamma`` is negative or ``scale`` not positive.

    State, cost: none; one normal number an entry and one softmax. The numbers are torch's, so a run that restores
    torch's generator repeats them.

    Source: Li et al., CVPR 2022, "Long-tailed visual recognition via Gaussian clouded logit adjustment", stage 1 and,
    with ``gamma=1`` and a class-balanced sampler, stage 2. MONICA's second stage has no focal factor, and its
    validation loss takes cosines without their scale. Classes of equal counts get no noise; an empty class counts as
    one sample. For a soft target the factor is that of its cross entropy.

    Example:
        >>> loss = GaussianCloudedLogitLoss(class_counts=[9, 1]).eval()
        >>> loss(torch.zeros(1, 2), torch.tensor([0])).item()  # log(2): no noise in evaluation
        0.6931...
    """

    one_class_a_sample = True

    def __init__(
        self,
        noise: float = 0.5,
        scale: float = 30.0,
        gamma: float = 0.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction)
        if noise < 0 or scale <= 0:
            raise ValueError(f"noise must not be negative and scale positive, got {noise} and {scale}")
        check_gamma(gamma)
        self.noise, self.scale, self.gamma = noise, scale, gamma

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the amplitude of the noise, (C,)."""
        log_n = counts.clamp(min=1).log()
        rarity = log_n.max() - log_n
        return self.scale * self.noise * rarity / rarity.max().clamp(min=torch.finfo(rarity.dtype).tiny)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        cloud = None
        if self.training:
            cloud = torch.randn_like(logits).div_(3).clamp_(-1, 1).abs_().mul_(-self.of_classes(logits))
        losses = cross_entropy(logits, target, shift=cloud)
        if self.gamma:
            improbability = -torch.expm1(-losses.detach())
            losses = improbability.clamp(min=0) ** self.gamma * losses  # a rounded loss may be just below 0
        return reduce(losses, self.reduction)

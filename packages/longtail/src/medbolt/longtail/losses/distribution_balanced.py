"""Distribution-balanced loss: weights for labels that come together, and tolerance for absent ones."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.class_counts import ClassCountsLoss
from medbolt.longtail.losses.focal import check_gamma
from medbolt.longtail.losses.inputs import class_logits, target_matrix


class DistributionBalancedLoss(ClassCountsLoss):
    r"""Re-balance multi-label data in which frequent labels accompany rare ones, and tolerate absent labels.

    .. math::
        \ell_{ic} = \hat r_{ic} \Big[ -y_{ic} (1 - q_{ic})^\gamma \log \sigma(z'_{ic})
        - \tfrac{1}{\lambda} (1 - y_{ic}) (1 - q_{ic})^\gamma \log \sigma(-\lambda z'_{ic}) \Big], \\
        \hat r_{ic} = \alpha + \sigma\big(\beta (r_{ic} - \mu)\big), \quad
        r_{ic} = \frac{1/n_c}{\sum_k y_{ik}/n_k}, \quad
        z'_{ic} = z_{ic} - \frac{\kappa}{\lambda} \log\Big(\frac{N}{n_c} - 1\Big)

    r is how often a sample should be drawn for class c alone over how often it is drawn for all its labels;
    :math:`q_{ic}` is the probability that the (scaled) logit gives to what label c really is.

    Args:
        num_samples: Training samples N; told by the task with the counts if not given. Where nobody tells, it is the
            sum of the counts, which suits one label a sample.
        alpha: Smallest weight.
        beta: Steepness of the weight.
        mu: Where the weight is half-way.
        negative_scale: :math:`\lambda`, positive: how much harder absent labels are cut off once learned.
        kappa: Strength of the shift of the logits.
        gamma: Focusing exponent, not negative; 0 for none.
        class_counts: Present labels of each class in training; told by the task if not given.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        logits (B, C) float; target (B, C) labels in [0, 1], or (B,) int64 class indices; output () or (B, C).

    Raises:
        ValueError: if ``negative_scale`` or ``num_samples`` is not positive or ``gamma`` negative.

    State, cost: none; about ten operations an entry.

    Source: Wu et al., arXiv 2007.09654, with the authors' values for VOC-LT and the sign and scale of the
    shift of their code; their constant factor 2 is left out. It is meant for a class-aware sampler. A sample without
    labels, where their code divides by zero, gets the largest weight; an empty class counts as one sample.

    Example:
        >>> loss = DistributionBalancedLoss(num_samples=100, class_counts=[50, 10], reduction="none")
        >>> loss(torch.zeros(1, 2), torch.tensor([[1.0, 0.0]])).shape
        torch.Size([1, 2])
    """

    def __init__(
        self,
        num_samples: int | None = None,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        negative_scale: float = 5.0,
        kappa: float = 0.05,
        gamma: float = 2.0,
        class_counts: Sequence[int] | None = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(class_counts, reduction, num_samples)
        check_gamma(gamma)
        if negative_scale <= 0:
            raise ValueError(f"negative_scale must be positive, got {negative_scale}")
        self.alpha, self.beta, self.mu = alpha, beta, mu
        self.negative_scale, self.kappa, self.gamma = negative_scale, kappa, gamma

    def per_class(self, counts: Tensor) -> Tensor:
        """Return the counts and the shift of the logits, (2, C)."""
        absent = (self.samples(counts) - counts).clamp(min=1)
        counts = counts.clamp(min=1)
        return torch.stack([counts, self.kappa / self.negative_scale * (absent / counts).log()])

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        logits = class_logits(logits, self)
        target = target_matrix(target, logits)
        counts, shift = self.of_classes(logits)
        shifted = logits - shift
        present = self._focal(-shifted)
        negative = self._focal(self.negative_scale * shifted) / self.negative_scale
        losses = self._weights(target, counts) * (target * present + (1 - target) * negative)
        return reduce(losses, self.reduction)

    def _weights(self, target: Tensor, counts: Tensor) -> Tensor:
        frequency = (target / counts).sum(1, keepdim=True)
        ratio = 1 / (counts * frequency.clamp(min=1e-12))
        return self.alpha + (self.beta * (ratio - self.mu)).sigmoid()

    def _focal(self, wrong: Tensor) -> Tensor:
        """Return the loss of entries whose logit of being wrong is given."""
        return (self.gamma * F.logsigmoid(wrong)).exp() * F.softplus(wrong)

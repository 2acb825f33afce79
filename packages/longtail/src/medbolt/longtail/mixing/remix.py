"""Remix: MixUp whose labels favour the rarer of two classes."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import Mix, MixedInputs
from medbolt.core.objective.mixup import drawn_weights
from medbolt.longtail.losses.inputs import hard
from medbolt.longtail.stages.counts import known_counts


class Remix(MixedInputs):
    r"""Mix images as MixUp does, and give a mixture of a rare and a frequent class the rare label.

    .. math::
        \tilde x_i = \lambda x_i + (1 - \lambda) x_j, \qquad
        \lambda_y = \begin{cases}
        0 & n_{y_i} / n_{y_j} \ge \kappa \text{ and } \lambda < \tau \\
        1 & n_{y_i} / n_{y_j} \le 1 / \kappa \text{ and } 1 - \lambda < \tau \\
        \lambda & \text{else} \end{cases}

    with :math:`\lambda \sim \mathrm{Beta}(\alpha, \alpha)` and one permutation :math:`j = \pi(i)` a batch, and the loss
    :math:`\lambda_y \ell(y_i) + (1 - \lambda_y)\, \ell(y_j)`. So the boundary moves towards the frequent class.

    Args:
        alpha: Parameter of the Beta distribution, positive.
        kappa: Ratio :math:`\kappa` of class sizes from which one is the rare one, above 1.
        tau: Share :math:`\tau` of the frequent image below which the mixture is of the rare class, in [0, 1]; 0 is
            MixUp. Above 0.5 even a mixture that is mostly of the frequent class is.
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed.
        features: Dotted attribute of the layer of ``step.features``.

    Raises:
        ValueError: if an option is out of range.
        UserError: at ``fit``, if nobody knows the class counts; in training, for soft targets or several labels.

    State, cost: none; see :class:`~medbolt.core.MixedInputs`, also for its order among other callbacks.

    Source: Chou et al., arXiv 2007.03943. In the first case the mixture has less than :math:`\tau` of the frequent
    :math:`x_i`. Two losses in place of one with mixed labels, which is the same for cross entropy.

    Example:
        >>> callback = Remix(alpha=1.0, kappa=3.0, tau=0.5)
    """

    needs_target = True

    def __init__(
        self,
        alpha: float = 1.0,
        kappa: float = 3.0,
        tau: float = 0.5,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if alpha <= 0 or kappa <= 1 or not 0 <= tau <= 1:
            raise ValueError(f"alpha must be positive, kappa above 1 and tau in [0, 1], got {alpha}, {kappa} and {tau}")
        self.alpha, self.kappa, self.tau = alpha, kappa, tau
        self.class_counts = class_counts
        self.counts = torch.ones(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn the class counts."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.counts = known_counts(self, self.class_counts, trainer).clamp(min=1).float()

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return one weight and one permutation for the images, and a weight of its own for each target."""
        assert target is not None
        partner = torch.randperm(size).to(device)
        weight = drawn_weights(self.alpha, self.alpha, 1).to(device).expand(size)
        n = self.counts.to(device)[hard(target, self, "use BalancedMixUp, which takes them").to(device)]
        return Mix(partner, weight, label_weight(weight, n, n[partner], self.kappa, self.tau))


def label_weight(weight: Tensor, own: Tensor, partner: Tensor, kappa: float, tau: float) -> Tensor:
    """Return the weight of the sample's own label, (B,); see :class:`Remix`.

    Args:
        weight: (B,) weight of the sample's own image.
        own: (B,) size of its class.
        partner: (B,) size of its partner's class.
        kappa: Ratio from which one class is rare.
        tau: Share below which the frequent class is not counted.

    Example:
        >>> label_weight(torch.tensor([0.4, 0.6]), torch.tensor([90.0, 5.0]), torch.tensor([5.0, 90.0]), 3.0, 0.5)
        tensor([0., 1.])
    """
    to_partner = (own >= kappa * partner) & (weight < tau)
    to_own = (partner >= kappa * own) & (1 - weight < tau)
    return weight.masked_fill(to_partner, 0.0).masked_fill(to_own, 1.0)

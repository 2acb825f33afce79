"""UniMix: MixUp that draws its partners from the tail and its weights by rarity."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import Mix, MixedInputs
from medbolt.core.objective.mixup import drawn_weights
from medbolt.longtail.losses.inputs import hard
from medbolt.longtail.stages.counts import known_counts


class UniMix(MixedInputs):
    r"""Mix each image with one that is likely of a rare class, so that the rarer of the two prevails.

    .. math::
        P(j) \propto n_{y_j}^{\tau}, \qquad
        \lambda_i = \Big( \frac{n_{y_j}}{n_{y_i} + n_{y_j}} + \xi_i \Big) \bmod 1, \quad
        \xi_i \sim \mathrm{Beta}(\alpha, \alpha), \qquad
        \tilde x_i = \lambda_i x_i + (1 - \lambda_i) x_j,\quad
        \lambda_i\, \ell(y_i) + (1 - \lambda_i)\, \ell(y_j)

    For :math:`\alpha < 1` the draws :math:`\xi` lie near 0 and 1, so :math:`\lambda` lies near the other class's share:
    the rarer image dominates. So the mixtures' classes are nearly uniform; the paper trains on them with the loss that
    corrects for what prior is left, :class:`~medbolt.longtail.LogitAdjustedLoss`.

    Args:
        alpha: Parameter of the Beta distribution, positive. The public configuration of CIFAR-100 has 0.8.
        tau: Exponent of class sizes in the draw of partners, usually not positive: 0 draws any sample of the batch as
            likely, -1 any class. The same configuration has -0.1.
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed.
        features: Dotted attribute of the layer of ``step.features``.

    Raises:
        ValueError: if ``alpha`` is not positive.
        UserError: at ``fit``, if nobody knows the class counts; in training, for soft targets or several labels.

    State, cost: none; see :class:`~medbolt.core.MixedInputs`, also for its order among other callbacks.

    Source: Xu et al., arXiv 2111.03874. Partners are drawn within the batch, with replacement, so that a class that is
    not in the batch is nobody's partner. With ``alpha=1`` and ``tau=0`` it is MixUp with a weight for each sample.

    Example:
        >>> callback = UniMix(alpha=0.8, tau=-0.1)
    """

    needs_target = True

    def __init__(
        self,
        alpha: float = 0.8,
        tau: float = -0.1,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.alpha, self.tau = alpha, tau
        self.class_counts = class_counts
        self.counts = torch.ones(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Learn the class counts."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.counts = known_counts(self, self.class_counts, trainer).clamp(min=1).float()

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return a partner and a weight for each sample."""
        assert target is not None
        n = self.counts[hard(target, self, "use BalancedMixUp, which takes them").cpu()]
        partner = torch.multinomial((n / n.max()) ** self.tau, size, replacement=True)
        weight = uniform_weight(drawn_weights(self.alpha, self.alpha, size), n, n[partner]).to(device)
        return Mix(partner.to(device), weight, weight)


def uniform_weight(drawn: Tensor, own: Tensor, partner: Tensor) -> Tensor:
    """Return the weights of the samples' own images, (B,); see :class:`UniMix`.

    Args:
        drawn: (B,) draws from the Beta distribution.
        own: (B,) sizes of the samples' classes.
        partner: (B,) sizes of their partners' classes.

    Example:
        >>> uniform_weight(torch.tensor([0.0, 0.5]), torch.tensor([90.0, 10.0]), torch.tensor([10.0, 90.0]))
        tensor([0.1000, 0.4000])
    """
    weight = partner / (own + partner) + drawn
    return weight - (weight > 1).to(weight)

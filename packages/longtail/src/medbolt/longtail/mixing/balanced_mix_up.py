"""Balanced-MixUp: a little of a class-balanced batch in every batch as the data are."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import Mix, MixedInputs, TrainingStep
from medbolt.core.objective.mixup import drawn_weights
from medbolt.longtail.mixing.partner_batches import PartnerBatches
from medbolt.longtail.samplers.class_balanced import ClassBalancedSampler
from medbolt.longtail.samplers.factory import SamplerCallable


class BalancedMixUp(MixedInputs):
    r"""Mix each batch, drawn as the data are, with a second one in which classes are equally frequent.

    .. math::
        \tilde x_i = (1 - \lambda_i)\, x_i + \lambda_i\, x'_i, \qquad
        (1 - \lambda_i)\, \ell(y_i) + \lambda_i\, \ell(y'_i), \qquad \lambda_i \sim \mathrm{Beta}(\alpha, 1)

    where :math:`(x', y')` comes from class-balanced sampling. With a small :math:`\alpha` most mixtures are nearly pure
    samples of the first batch; the rest brings the tail in without showing the same few images again and again.

    Args:
        alpha: Parameter of the Beta distribution, positive; the mean share of the second batch is
            :math:`\alpha / (\alpha + 1)`. The paper's are 0.1 to 0.3 (as we remember it).
        sampler: Makes the sampler of the second batch, see :class:`~medbolt.longtail.Resampled`.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed: the batch's images
            as the data module gives them.
        features: Dotted attribute of the layer of ``step.features``.

    Raises:
        ValueError: if ``alpha`` is not positive.
        UserError: at ``fit``, without a data module of medbolt's kind; in training, if the network is given images of
            another shape than the data module's.

    State, cost: none to checkpoint: the second batch is a function of (seed, epoch, place). It has a loader of its own,
    so loading doubles, workers included. See :class:`~medbolt.core.MixedInputs` for its order among other callbacks.

    Source: Galdran et al., arXiv 2109.09850. Which of the two batches :math:`\lambda` weighs is taken from the paper's
    summary; its code was not compared. Here each sample has a weight of its own. A public copy in a chest X-ray
    benchmark reads both images from the same batch and swaps the labels' weights.

    Example:
        >>> callback = BalancedMixUp(alpha=0.2)
    """

    def __init__(
        self,
        alpha: float = 0.2,
        sampler: SamplerCallable = ClassBalancedSampler,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.alpha, self.sampler = alpha, sampler
        self._partners: PartnerBatches | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the second stream of batches."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._partners = PartnerBatches(type(self).__name__, self.sampler, trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Load the second batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        assert self._partners is not None
        self._partners.fetch(trainer.current_epoch, batch_idx, pl_module)

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return a weight for each sample; partners are positions in the second batch."""
        assert self._partners is not None
        weight = 1 - drawn_weights(self.alpha, 1.0, size).to(device)
        partner = torch.arange(size, device=device) % len(self._partners.images)
        return Mix(partner, weight, weight)

    def combine(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the mixtures with the second batch."""
        assert self._partners is not None
        weight = mix.image_weight.to(images).view(-1, *[1] * (images.ndim - 1))
        return weight * images + (1 - weight) * self._partners.images_like(images)[mix.partner]

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the targets of both batches, weighted."""
        assert self._partners is not None
        mix = self.mix_of(step)
        targets = self._partners.targets.to(step.target)[mix.partner]
        return mix.target_weight * step.loss() + (1 - mix.target_weight) * step.loss(target=targets)

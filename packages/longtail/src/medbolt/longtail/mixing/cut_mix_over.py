"""Context-rich minority oversampling (CMO): patches of rare classes on backgrounds of frequent ones."""

import math

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from medbolt.core import Mix, MixedInputs, TrainingStep
from medbolt.core.objective.mixup import drawn_weights
from medbolt.longtail.mixing.partner_batches import PartnerBatches
from medbolt.longtail.samplers.class_balanced import ClassBalancedSampler
from medbolt.longtail.samplers.factory import SamplerCallable


class CutMixOver(MixedInputs):
    r"""Paste a patch of a sample of a balanced draw onto each sample as the data are (CMO).

    .. math::
        \tilde x_i = M \odot x_i + (1 - M) \odot x'_i, \qquad
        \lambda\, \ell(y_i) + (1 - \lambda)\, \ell(y'_i), \qquad
        \lambda = \tfrac{1}{HW} \textstyle\sum M

    M is 0 in a box whose sides are :math:`\sqrt{1 - \lambda_0}` of the image's, :math:`\lambda_0 \sim
    \mathrm{Beta}(\alpha, \alpha)`, around a point drawn anywhere, and clipped; one box a batch. Rare foregrounds thus
    appear in the many contexts of the frequent classes.

    Args:
        alpha: Parameter of the Beta distribution, positive; the paper's is 1.
        probability: Probability that a batch is mixed, in [0, 1].
        quiet_epochs: Epochs at the beginning and at the end of the run without mixing. Both need ``max_epochs``; if it
            is not set, only those at the beginning are.
        sampler: Makes the sampler of the patches, see :class:`~medbolt.longtail.Resampled`. The paper's weighs a sample
            by :math:`1/n_c`, which is class-balanced sampling, or :math:`1/\sqrt{n_c}`, ``SquareRootSampler``.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ..., H, W) float, is mixed: the batch's
            images as the data module gives them.
        features: Dotted attribute of the layer of ``step.features``.

    Raises:
        ValueError: if an option is out of range.
        UserError: at ``fit``, without a data module of medbolt's kind; in training, if the network is given images of
            another shape than the data module's.

    State, cost: none to checkpoint: the patches' batch is a function of (seed, epoch, place). It has a loader of its
    own, so loading doubles, workers included. See :class:`~medbolt.core.MixedInputs` for its order among callbacks.

    Source: Park et al., arXiv 2112.00412. Public code mixes in epochs 3 < t < T - 3, counted from 0; here the quiet
    epochs are as many at the beginning as at the end. A lesion may lie outside of the patch, whose label counts by area
    all the same.

    Example:
        >>> callback = CutMixOver(probability=0.5, quiet_epochs=3)
    """

    def __init__(
        self,
        alpha: float = 1.0,
        probability: float = 0.5,
        quiet_epochs: int = 3,
        sampler: SamplerCallable = ClassBalancedSampler,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if alpha <= 0 or not 0 <= probability <= 1 or quiet_epochs < 0:
            raise ValueError(
                "alpha must be positive, probability in [0, 1] and quiet_epochs not negative, got "
                f"{alpha}, {probability} and {quiet_epochs}"
            )
        self.alpha, self.probability, self.quiet_epochs, self.sampler = alpha, probability, quiet_epochs, sampler
        self.epochs = range(0)  # that mix
        self._partners: PartnerBatches | None = None
        self._is_active = False
        self._box = (slice(0, 0), slice(0, 0))

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the stream of patches."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self._partners = PartnerBatches(type(self).__name__, self.sampler, trainer)
        last = trainer.max_epochs
        end = 2**62 if last is None or last < 0 else last - self.quiet_epochs
        self.epochs = range(self.quiet_epochs, max(end, self.quiet_epochs))
        if not self.epochs:
            rank_zero_warn(f"CutMixOver never mixes: all {last} epochs are quiet_epochs={self.quiet_epochs} at an end.")

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Load the patches' batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        assert self._partners is not None
        self._is_active = trainer.current_epoch in self.epochs
        if self._is_active:
            self._partners.fetch(trainer.current_epoch, batch_idx, pl_module)

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Draw the box; partners are positions in the patches' batch."""
        assert self._partners is not None
        self._box = (slice(0, 0), slice(0, 0))
        if not self._is_active or torch.rand(()) >= self.probability:
            return super().draw(size, target, device)
        height, width = self._partners.images.shape[-2:]
        share = 1 - float(drawn_weights(self.alpha, self.alpha, 1))
        y, x = torch.rand(2).tolist()
        self._box = rows, columns = box(share, y, x, height, width)
        area = (rows.stop - rows.start) * (columns.stop - columns.start)
        weight = torch.full((size,), 1 - area / (height * width), device=device)
        return Mix(torch.arange(size, device=device) % len(self._partners.images), weight, weight)

    def combine(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the images with the patches on them."""
        rows, columns = self._box
        if rows.start == rows.stop or columns.start == columns.stop:
            return images
        assert self._partners is not None
        patches = self._partners.images_like(images)[mix.partner]
        images = images.clone()
        images[..., rows, columns] = patches[..., rows, columns]
        return images

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the targets of backgrounds and patches, weighted."""
        mix, partners = self.mix_of(step), self._partners
        if partners is None or not (mix.target_weight < 1).any():
            return step.loss()
        targets = partners.targets.to(step.target)[mix.partner]
        return mix.target_weight * step.loss() + (1 - mix.target_weight) * step.loss(target=targets)


def box(share: float, y: float, x: float, height: int, width: int) -> tuple[slice, slice]:
    """Return rows and columns of a box around a point, clipped to the image.

    Args:
        share: Share of the image's area that the box has before it is clipped.
        y: Vertical place of its middle, in [0, 1].
        x: Horizontal place of its middle, in [0, 1].
        height: Of the image, in pixels.
        width: Of the image, in pixels.

    Example:
        >>> box(0.25, y=0.5, x=0.0, height=8, width=8)
        (slice(2, 6, None), slice(0, 2, None))
    """
    side = math.sqrt(share)
    sides = []
    for middle, size in ((int(y * height), height), (int(x * width), width)):
        half = int(side * size) // 2
        sides.append(slice(max(middle - half, 0), min(middle + half, size)))
    return sides[0], sides[1]

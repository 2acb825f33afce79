"""Bilateral-branch network (BBN): a branch for the data as they are, one for the tail, and a slow change of weight."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import Mix, MixedInputs, TrainingStep, UserError
from medbolt.longtail.experts.lookup import find_experts
from medbolt.longtail.mixing.partner_batches import PartnerBatches
from medbolt.longtail.samplers.factory import SamplerCallable
from medbolt.longtail.samplers.reverse import ReverseSampler


class BilateralBranch(MixedInputs):
    r"""Train two branches on two streams of samples, and go from the first to the second (BBN).

    .. math::
        z_i = \alpha\, z_1(x_i) + (1 - \alpha)\, z_2(x'_i), \qquad
        \alpha\, \ell(z_i, y_i) + (1 - \alpha)\, \ell(z_i, y'_i), \qquad
        \alpha = 1 - (t / T)^2

    where :math:`(x, y)` are drawn as the data module draws them and :math:`(x', y')` by inverse frequency; t is the
    epoch, from 0, of T. Features are learned first, from all data, then the classifier of the tail. The network is an
    :class:`~medbolt.longtail.ExpertsClassifier` of two experts; it predicts with the mean of both, which see the same
    image then.

    Args:
        sampler: Makes the sampler of the second branch, see :class:`~medbolt.longtail.Resampled`.
        epochs: T; ``max_epochs`` of the trainer by default. Later epochs have :math:`\alpha = 0`.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network of two experts, whose first positional argument, (B, ...) float, are the
            batch's images as the data module gives them.

    Shapes:
        experts' logits (2, B, C); target of any kind that the criterion takes.

    Raises:
        ValueError: if ``epochs`` is not positive.
        UserError: at ``fit``, if the network has not two experts, nobody says how many epochs there are, or without a
            data module of medbolt's kind; in training, if the network is given images of another shape than the data
            module's.

    State, cost: none to checkpoint: the second batch is a function of (seed, epoch, place) and the weight one of the
    epoch. Loading and the shared layers cost twice what they did, the branches each once. Other callbacks that mix
    images come after this one: their mixtures, not the batch's images, then meet the second batch.

    Source: Zhou et al., arXiv 1912.02413. The authors' code takes twice the weighted logits, so that a test sees their
    sum; here a test sees their mean. There each branch has the last residual block to itself and both one bias; here
    parts are chosen freely and each head has its own. There the shared batch norm sees the two batches one after the
    other, here together. MONICA shares all of the backbone, draws classes equally and divides the epoch by 100 or
    more, so that the weight hardly moves.

    Example:
        >>> callback = BilateralBranch()
    """

    def __init__(
        self,
        sampler: SamplerCallable = ReverseSampler,
        epochs: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs must be positive, got {epochs}")
        self.sampler, self.epochs = sampler, epochs
        self.alpha = 1.0
        self._partners: PartnerBatches | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Prepare the second stream of batches."""
        if stage == "fit":
            find_experts(pl_module, self.network, self, 2)
            self._total(trainer)
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._partners = PartnerBatches(type(self).__name__, self.sampler, trainer)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: object, batch_idx: int) -> None:
        """Load the second batch."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        assert self._partners is not None
        self.alpha = share_of_first(trainer.current_epoch, self._total(trainer))
        self._partners.fetch(trainer.current_epoch, batch_idx, pl_module)

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return the weight of the first branch; partners are positions in the second batch."""
        assert self._partners is not None
        weight = torch.full((size,), self.alpha, device=device)
        return Mix(torch.arange(size, device=device) % len(self._partners.images), weight, weight)

    def combine(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the images of both branches, (2B, ...)."""
        assert self._partners is not None
        return torch.cat([images, self._partners.images_like(images)[mix.partner]])

    def network_inputs(self, images: Tensor, mix: Mix, *others: Any) -> tuple[Tensor, Tensor]:
        """Return the images of both branches and the branches' weights, (2,)."""
        return self.combine(images, mix), torch.tensor([self.alpha, 1 - self.alpha], device=images.device)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the targets of both batches, weighted."""
        assert self._partners is not None
        mix = self.mix_of(step)
        targets = self._partners.targets.to(step.target)[mix.partner]
        return mix.target_weight * step.loss() + (1 - mix.target_weight) * step.loss(target=targets)

    def _total(self, trainer: Trainer) -> int:
        epochs = trainer.max_epochs if self.epochs is None else self.epochs
        if epochs is None or epochs < 0:
            raise UserError(
                "BilateralBranch changes its weights over all epochs, but the trainer has no max_epochs; set it, or "
                "give BilateralBranch epochs=90 for instance."
            )
        return epochs


def share_of_first(epoch: int, epochs: int) -> float:
    r"""Return :math:`\alpha = 1 - (t / T)^2`, the weight of the first branch in an epoch counted from 0.

    Example:
        >>> [share_of_first(epoch, 4) for epoch in range(5)]
        [1.0, 0.9375, 0.75, 0.4375, 0.0]
    """
    return 1 - min(epoch / epochs, 1.0) ** 2

"""SELC: replace the labels bit by bit with the mean of the network's own predictions."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.class_count import class_count
from medbolt.noisy.memorizing.classes import as_distribution, as_target, log_probability_of
from medbolt.noisy.one_class import OneClassTargets


class SelfEnsembleLabelCorrection(ObjectiveCallback):
    r"""Train on a running mean of label and predictions, once the right labels are learned (SELC).

    .. math::
        t_i \leftarrow \alpha t_i + (1 - \alpha) p_i \quad (t_i = y_i \text{ at first}), \qquad \ell(p_i, t_i)

    Until ``start_epoch`` the labels are used as they are. ``memory["target"]`` holds :math:`t`.

    Args:
        start_epoch: First epoch (from 0) with corrected labels: when the right labels are learned and the wrong ones
            not yet. The authors find it where a measure of memorisation turns; take the epoch of the best validation.
        momentum: :math:`\alpha` in [0, 1].
        num_classes: Number of classes, where the data module does not tell.
        criterion: Attribute of the criterion, which must take probabilities as targets (cross entropy does); see
            :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.
        features: Dotted attribute of the layer of ``step.features``.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the data module does not know its training set, or nobody the number of classes; in
            training, if samples have several findings.

    State, cost: N x C float32, merged across processes each epoch and kept in checkpoints; one softmax. Two processes
    do what one does with the double batch. What asks for the loss twice in a batch (a method with two networks, MixUp)
    belongs inward, before this one in the list of callbacks: else the mean is updated twice.

    Source: Lu and He, arXiv 2205.01156, from memory: neither paper nor code were at hand.

    Example:
        >>> callback = SelfEnsembleLabelCorrection(start_epoch=10)
    """

    def __init__(
        self,
        start_epoch: int,
        momentum: float = 0.9,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if start_epoch < 0 or not 0 <= momentum <= 1:
            raise ValueError(
                f"start_epoch must not be negative and momentum in [0, 1], got {start_epoch} and {momentum}"
            )
        self.start_epoch, self.momentum, self.num_classes = start_epoch, momentum, num_classes
        self._one_class = OneClassTargets(type(self).__name__)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; make room for the targets."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.remember(trainer, target=torch.zeros(class_count(self, self.num_classes, trainer, pl_module)))

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the corrected labels; update those of the batch."""
        assert self.memory is not None
        self._one_class.require(step)
        if step.module.current_epoch < self.start_epoch:
            return step.loss()
        index, num_classes = step.index, self.memory["target"].shape[1]
        p = log_probability_of(self, step.logits.detach(), num_classes).exp()
        known = self.memory.seen[index.to(self.memory.seen.device)].to(p.device)
        target = self.memory.read(index, "target")
        target = torch.where(known[:, None], target, as_distribution(step.target, num_classes))
        target = self.momentum * target + (1 - self.momentum) * p
        self.memory.write(index, target=target)
        return step.loss(target=as_target(target, step.logits))

"""Train without the samples that confident learning takes for mislabelled."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.class_count import class_count
from medbolt.noisy.quality.averages import moved_average, prediction_of
from medbolt.noisy.quality.confident_joint import label_issues
from medbolt.noisy.selection.labels import Labels, training_labels
from medbolt.noisy.selection.selection import Selection


class ConfidentWeighting(ObjectiveCallback):
    r"""Weight samples by confident learning on the moving averages of their predictions, anew each epoch.

    .. math:: \ell_i = \frac{w_i}{\bar w} \, \ell_i^{\text{in}}, \qquad
        w_i = \begin{cases} 0 & \text{label } \tilde y_i \text{ is an issue of the averages } \bar p \\ 1
        & \text{otherwise}\end{cases} \quad \text{or, soft,} \quad w_i = \bar p_{i, \tilde y_i}

    Issues are those of :func:`~medbolt.noisy.label_issues`. Weights have mean 1 over the samples seen so far; those not
    yet seen have weight 1. Where all weights were 0, they are 1.

    The averages are of training batches, hence in sample: begin before the network knows the labels by heart. Rare
    classes are protected by their own thresholds, but watch ``SelectionQuality`` and ``CollapseMonitor``, which see
    what is kept.

    Args:
        start_epoch: First epoch (from 0) with weights; at least 1 full epoch must have been seen for them to mean much.
        soft: Weight by the average probability of the given label instead of leaving samples out.
        momentum: Share of the old average at a visit, in [0, 1).
        num_classes: Number of classes, if neither the data module nor the module has ``num_classes``.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if ``momentum`` is not in [0, 1) or ``start_epoch`` is negative.
        UserError: at ``fit``, if the number of classes is unknown, or batches carry no index.

    State, cost: C + 1 numbers and a label a sample; one softmax a batch, two passes over the averages an epoch.

    Source: Northcutt et al., arXiv 1911.00068, prune once with out-of-sample predictions and train anew, without
    weights for what is left of a class. Here pruning goes along with training, and can be taken back.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[ConfidentWeighting(start_epoch=5)], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        start_epoch: int = 5,
        soft: bool = False,
        momentum: float = 0.9,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        if start_epoch < 0:
            raise ValueError(f"start_epoch must not be negative, got {start_epoch}")
        self.start_epoch, self.soft, self.momentum, self.num_classes = start_epoch, soft, momentum, num_classes
        self.selection: Selection | None = None
        """Which samples of the running batch have a weight above 0."""
        self._labels: Labels | None = None
        self._is_seen = False

    def objective(self, step: TrainingStep) -> Tensor:
        """Return weighted losses; remember the predictions."""
        assert self.memory is not None
        index = step.index
        weight = self.memory.read(index, "weight")
        if not self._is_seen:  # methods further out may ask again, with a peer network's logits
            self._is_seen = True
            log_p, given = prediction_of(step, self._labels)
            probability = moved_average(self.memory, index, log_p.exp(), self.momentum)
            self.memory.write(index, given=given, probability=probability)
            self.selection = Selection(index, weight > 0)
        return weight * step.loss()

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Compute the weights of this epoch."""
        assert self.memory is not None
        if trainer.current_epoch >= self.start_epoch:
            seen = self.memory.seen
            given, probability = self.memory["given"][seen], self.memory["probability"][seen]
            self.memory["weight"][seen] = _weights(given, probability, self.soft)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; make the memory."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        data = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        self._labels = training_labels(data)
        classes = class_count(self, self.num_classes, trainer, pl_module)
        self.remember(trainer, given=torch.tensor(-1), probability=torch.zeros(classes), weight=torch.tensor(1.0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the labels to the module's device."""
        super().on_train_start(trainer, pl_module)
        if self._labels is not None:
            self._labels = self._labels.to(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._is_seen, self.selection = False, None


def _weights(given: Tensor, probability: Tensor, soft: bool) -> Tensor:
    """Return weights of mean 1; all 1 where none is above 0."""
    if not len(given):
        return torch.ones(0, device=given.device)
    own = probability.gather(1, given.unsqueeze(1)).squeeze(1)
    weights = own if soft else (~label_issues(given, probability)).float()
    mean = weights.mean()
    return torch.where(mean > 0, weights / mean, 1.0)

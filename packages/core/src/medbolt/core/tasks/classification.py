"""A LightningModule for classification over any network, with metrics that suit medical data."""

from collections.abc import Sequence
from contextlib import nullcontext, suppress
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric

from medbolt.core.batch import batch_size
from medbolt.core.errors import UserError
from medbolt.core.losses import require_several_labels, tell_class_counts
from medbolt.core.metrics.breakdown import Breakdown
from medbolt.core.metrics.defaults import TaskKind, classification_metrics
from medbolt.core.tasks.log_loss import log_loss
from medbolt.core.tasks.targets import check_targets


class ClassificationTask(LightningModule):
    """Train and evaluate a classifier on batches that follow :class:`~medbolt.core.batch.Batch`.

    It logs ``train/loss`` by step and by epoch; ``val/*`` and ``test/*`` of
    :func:`~medbolt.core.metrics.defaults.classification_metrics`; and ``test/<metric>/<class or domain>`` of
    :class:`~medbolt.core.metrics.breakdown.Breakdown`. The criterion is the attribute ``criterion`` and the network the
    attribute ``model``, where objective callbacks look first.

    Args:
        model: The network: image (B, 3, H, W) to logits, (B, num_classes), or (B, 1) for a binary task.
        num_classes: Number of classes or labels (2 for a binary task). The command line takes it from the data.
        task: ``"multiclass"``; ``"ordinal"``, the same with grades as classes and quadratic weighted kappa;
            ``"binary"``, one logit; ``"multilabel"``, one logit a label.
        criterion: The loss of logits and targets; by default cross entropy, or binary cross entropy for binary and
            multilabel tasks. A loss that asks for class counts, or the number of samples, is told those of the data.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning rate scheduler from the optimizer. ``ReduceLROnPlateau`` watches ``val/loss``.
        scheduler_interval: Whether the scheduler steps each epoch or each optimizer step.

    Raises:
        ValueError: if a binary task has not two classes.
        UserError: if the data's targets are of another kind, such as several findings a sample for a multiclass task,
            or the criterion is a loss for one class a sample and the task ``"multilabel"``.

    Example:
        >>> task = ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), num_classes=5, task="ordinal")
        >>> task(torch.zeros(2, 3, 2, 2)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        task: TaskKind = "multiclass",
        criterion: nn.Module | None = None,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable | None = None,
        scheduler_interval: Literal["epoch", "step"] = "epoch",
    ) -> None:
        super().__init__()
        if task == "binary" and num_classes != 2:
            raise ValueError(f"a binary task has 2 classes, got num_classes={num_classes}")
        self.save_hyperparameters(ignore=["model", "criterion", "optimizer", "scheduler"])
        if "_instantiator" in self.hparams:  # LightningCLI's parsed values are plain and rebuild the objects on load
            self.save_hyperparameters()
        self.model = model
        self.num_classes = num_classes
        self.task: TaskKind = task
        one_logit_each = task in ("binary", "multilabel")
        self.criterion = criterion or (nn.BCEWithLogitsLoss() if one_logit_each else nn.CrossEntropyLoss())
        if task == "multilabel":
            require_several_labels(self.criterion)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        metrics = classification_metrics(task, num_classes)
        self.val_loss, self.test_loss = MeanMetric(), MeanMetric()
        self.val_metrics = metrics.clone(prefix="val/")
        self.test_metrics = metrics.clone(prefix="test/")
        self.breakdown = Breakdown(task, [str(c) for c in range(num_classes)])

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, C), or (B,) for a binary task."""
        logits = self.model(image)
        return logits.flatten() if self.task == "binary" else logits

    def setup(self, stage: str) -> None:
        """Learn from the data module the names of classes and domains, and tell the criterion the class counts."""
        data: Any = getattr(self.trainer, "datamodule", None)
        names = cast("Sequence[str] | None", getattr(data, "class_names", None))
        if names is not None and len(names) == self.num_classes:
            self.breakdown = Breakdown(self.task, names, getattr(data, "domain_names", None))
        if data is None or stage == "predict":
            return
        # a test needs the counts for its loss only, and may lack the training data they come from
        with nullcontext() if stage == "fit" else suppress(UserError):
            targets = getattr(data, "train_targets", None)  # of the samples, where ``train_size`` is of the base
            if targets is not None:
                check_targets(self.task, targets)
            if (counts := getattr(data, "class_counts", None)) is not None:
                tell_class_counts(self.criterion, counts, None if targets is None else len(targets))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        loss = self._loss(self(batch["image"]), batch["target"])
        log_loss(self, loss, batch)
        return loss

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Log loss and metrics; return probabilities and targets."""
        outputs = self._evaluate(batch, "val", self.val_loss)
        self.val_metrics.update(outputs["probability"], self._labels(outputs["target"]))
        self.log_dict(self.val_metrics, batch_size=batch_size(batch))  # pyright: ignore[reportArgumentType]
        return outputs

    def test_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Log loss and metrics; return probabilities and targets."""
        outputs = self._evaluate(batch, "test", self.test_loss)
        labels = self._labels(outputs["target"])
        self.test_metrics.update(outputs["probability"], labels)
        self.log_dict(self.test_metrics, batch_size=batch_size(batch))  # pyright: ignore[reportArgumentType]
        self.breakdown.update(outputs["probability"], labels, batch.get("domain"))
        return outputs

    def on_test_epoch_end(self) -> None:
        """Log the views by class and by domain."""
        values = {f"test/{name}": value for name, value in self.breakdown.compute().items()}
        self.log_dict(values, sync_dist=True)  # equal on all processes already; the flag spares a warning
        self.breakdown.reset()

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, Tensor]:
        """Return probabilities, and targets where there are any."""
        probability = self._probability(self(batch["image"]))
        return {"probability": probability} | ({"target": batch["target"]} if "target" in batch else {})

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Make the optimizer over all parameters, and the scheduler."""
        optimizer = self.optimizer(self.parameters())
        if self.scheduler is None:
            return optimizer
        scheduler = self.scheduler(optimizer)
        config: dict[str, Any] = {"scheduler": scheduler, "interval": self.scheduler_interval}
        if isinstance(scheduler, ReduceLROnPlateau):
            config["monitor"] = "val/loss"
        return {"optimizer": optimizer, "lr_scheduler": config}  # pyright: ignore[reportReturnType]

    def _evaluate(self, batch: dict[str, Any], stage: str, mean_loss: MeanMetric) -> dict[str, Tensor]:
        logits = self(batch["image"])
        loss = self._loss(logits, batch["target"])
        # a metric, not the value: Lightning's own mean over processes rounds shares of unequal size
        mean_loss.update(loss, batch_size(batch))
        self.log(f"{stage}/loss", mean_loss, prog_bar=True, batch_size=batch_size(batch))
        return {"probability": self._probability(logits), "target": batch["target"]}

    def _loss(self, logits: Tensor, target: Tensor) -> Tensor:
        return self.criterion(logits, target.to(logits) if self.task in ("binary", "multilabel") else target)

    def _probability(self, logits: Tensor) -> Tensor:
        logits = logits.float()
        return logits.sigmoid() if self.task in ("binary", "multilabel") else logits.softmax(1)

    def _labels(self, target: Tensor) -> Tensor:
        """Return hard labels for the metrics; soft targets count as their most probable class."""
        if self.task == "multilabel":
            return (target > 0.5).long()
        return target.argmax(1) if target.ndim == 2 else target.long()

"""A LightningModule for classification over any network, with metrics that suit medical data."""

from collections.abc import Iterable, Sequence
from contextlib import nullcontext, suppress
from typing import Any, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from medbolt.core.errors import UserError, listed
from medbolt.core.losses import require_several_labels, tell_class_counts
from medbolt.core.metrics.breakdown import Breakdown
from medbolt.core.metrics.defaults import TaskKind
from medbolt.core.tasks.log_loss import log_loss
from medbolt.core.tasks.scores import Scores
from medbolt.core.tasks.targets import check_targets


class ClassificationTask(LightningModule):
    """Train and evaluate a classifier on batches that follow :class:`~medbolt.core.batch.Batch`.

    It logs ``train/loss`` by step and by epoch; ``val/*`` and ``test/*`` of
    :func:`~medbolt.core.metrics.defaults.classification_metrics`; and ``test/<metric>/<class or domain>`` of
    :class:`~medbolt.core.metrics.breakdown.Breakdown`. Of several validation or test loaders each has its own, with
    Lightning's ``/dataloader_idx_<number>`` behind the name. The criterion is the attribute ``criterion`` and the
    network the attribute ``model``, where objective callbacks look first.

    Args:
        model: The network: image (B, 3, H, W) to logits, (B, num_classes), or (B, 1) for a binary task.
        num_classes: Number of classes or labels (2 for a binary task). The command line takes it from the data.
        task: ``"multiclass"``; ``"ordinal"``, the same with grades as classes and quadratic weighted kappa;
            ``"binary"``, one logit; ``"multilabel"``, one logit a label.
        criterion: The loss of logits and targets; by default cross entropy, or binary cross entropy for binary and
            multilabel tasks. A loss that asks for class counts, or the number of samples, is told those of the data.
        optimizer: Makes the optimizer from the parameters.
        scheduler: Makes the learning rate scheduler from the optimizer. ``ReduceLROnPlateau`` watches ``val/loss``
            (of the first validation loader).
        scheduler_interval: Whether the scheduler steps each epoch or each optimizer step.

    Raises:
        ValueError: if a binary task has not two classes.
        UserError: if the data's targets are of another kind, such as several findings a sample for a multiclass task,
            the criterion is a loss for one class a sample and the task ``"multilabel"``, or a run goes on from a
            checkpoint with another optimizer.

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
        usual = nn.BCEWithLogitsLoss() if one_logit_each else nn.CrossEntropyLoss()
        self.criterion = usual if criterion is None else criterion  # compiled ones have no truth value
        if task == "multilabel":
            require_several_labels(self.criterion)
        self.optimizer = optimizer
        self.scheduler = scheduler
        self.scheduler_interval = scheduler_interval
        self.val_scores, self.test_scores = nn.ModuleList(), nn.ModuleList()  # of each loader
        self._breakdowns: list[Breakdown] = []

    def forward(self, image: Tensor) -> Tensor:
        """Return logits, (B, C), or (B,) for a binary task."""
        logits = self.model(image)
        if self.task != "binary":
            return logits
        if logits.numel() != len(image):
            raise UserError(
                f"a binary task needs a network with one output, but it gives {tuple(logits.shape)} for {len(image)} "
                "images; make it with num_classes=1, or take task='multiclass'."
            )
        return logits.flatten()

    def setup(self, stage: str) -> None:
        """Check the targets of the data module, and tell the criterion their class counts."""
        data: Any = getattr(self.trainer, "datamodule", None)
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
        loss = self._loss(self(batch["image"]), _target(batch))
        log_loss(self, loss, batch)
        return loss

    def on_train_start(self) -> None:
        """Refuse another optimizer than the checkpoint's; let a plateau watch what several loaders log."""
        for optimizer in self.trainer.optimizers:
            absent = [name for name in optimizer.defaults if name not in optimizer.param_groups[0]]
            if absent:  # torch takes the groups of any optimizer
                raise UserError(
                    f"the checkpoint's optimizer had no {listed(absent)}, so it was not {type(optimizer).__name__}; "
                    "configure the one that it was trained with."
                )
        if len(self.trainer.num_val_batches) > 1:
            for config in self.trainer.lr_scheduler_configs:
                config.monitor = "val/loss/dataloader_idx_0" if config.monitor == "val/loss" else config.monitor

    def on_validation_epoch_start(self) -> None:
        """Begin to gather for each loader."""
        self._begin(self.val_scores, len(self.trainer.num_val_batches))

    def validation_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log loss and metrics; return probabilities and targets."""
        return self._evaluate(batch, "val", dataloader_idx)

    def on_test_epoch_start(self) -> None:
        """Begin to gather for each loader, also by class and by domain."""
        loaders = len(self.trainer.num_test_batches)
        self._begin(self.test_scores, loaders)
        data: Any = getattr(self.trainer, "datamodule", None)
        names: Sequence[str] | None = getattr(data, "class_names", None)
        domains: Sequence[str] | None = getattr(data, "domain_names", None)
        if names is None or len(names) != self.num_classes:
            names, domains = [str(number) for number in range(self.num_classes)], None
        self._breakdowns = [Breakdown(self.task, names, domains).to(self.device) for _ in range(loaders)]

    def test_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Log loss and metrics; return probabilities and targets."""
        outputs = self._evaluate(batch, "test", dataloader_idx)
        labels = self._labels(outputs["target"])
        self._breakdowns[dataloader_idx].update(outputs["probability"], labels, batch.get("domain"))
        return outputs

    def on_test_epoch_end(self) -> None:
        """Log the views by class and by domain."""
        for number, breakdown in enumerate(self._breakdowns):
            # a process may have had no batch, and for a loader without batches there is nothing to log
            if not self.trainer.strategy.reduce_boolean_decision(breakdown.update_called, all=False):
                continue
            suffix = f"/dataloader_idx_{number}" if len(self._breakdowns) > 1 else ""
            values = {f"test/{name}{suffix}": value for name, value in breakdown.compute().items()}
            # equal on all processes already; sync_dist spares a warning
            self.log_dict(values, sync_dist=True, add_dataloader_idx=False)
        self._breakdowns = []

    def predict_step(self, batch: dict[str, Any], batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
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

    def _begin(self, scores: nn.ModuleList, loaders: int) -> None:
        scores.extend(Scores(self.task, self.num_classes).to(self.device) for _ in range(len(scores), loaders))
        for of_loader in cast("Iterable[Scores]", scores):
            of_loader.reset()

    def _evaluate(self, batch: dict[str, Any], stage: str, loader: int) -> dict[str, Tensor]:
        logits, target = self(batch["image"]), _target(batch)
        attribute = f"{stage}_scores.{loader}"
        scores = cast("Scores", self.get_submodule(attribute))
        probability = self._probability(logits)
        scores.update(self._loss(logits, target), probability, self._labels(target))
        scores.log(self, stage, attribute, len(target))
        return {"probability": probability, "target": target}

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


def _target(batch: dict[str, Any]) -> Tensor:
    if "target" not in batch:
        raise UserError("the batches have no target to train or evaluate by; name the label column, or run predict.")
    return batch["target"]

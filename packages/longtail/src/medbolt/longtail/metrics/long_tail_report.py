"""The callback that logs what happens to head, medium and tail."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor
from torchmetrics import Metric

from medbolt.core import UserError
from medbolt.core.batch import batch_target
from medbolt.core.data.base import DataModuleWrapper
from medbolt.core.predictions.capture import Outputs
from medbolt.core.predictions.context import task_of
from medbolt.longtail.losses.inputs import precise, two_columns
from medbolt.longtail.metrics.class_groups import Average, ClassGroups
from medbolt.longtail.metrics.group_ranking import GroupRanking
from medbolt.longtail.metrics.group_recall import GroupF1, GroupRecall
from medbolt.longtail.posthoc.split import class_target


class LongTailReport(Callback):
    """Log recall, F1, AUROC and average precision of head, medium and tail classes, in validation and test.

    Works with any classification LightningModule. Scores and targets come from the dict that the
    step returns (``probability`` or ``logits``, and ``target``, as medbolt's tasks do), or else from the logits that
    ``network`` puts out and from the batch. Logged are ``val/recall/head``, ``.../medium``, ``.../tail`` and
    ``.../average``, the same of ``f1`` and, with ``ranking``, of ``auroc`` and ``average_precision``; in a test
    ``test/...``; of several loaders with ``/dataloader_idx_<number>`` behind it. A group without classes or samples is
    left out. Counts are exact on any number of processes. Of several findings a sample there are AUROC and average
    precision only, as the others need a threshold.

    Args:
        many: Head classes have more training samples than that, unless the data module has ``class_groups`` of its own,
            as :class:`~medbolt.longtail.MonicaSplit` does.
        few: Tail classes have fewer.
        index_bounds: Instead of either, the ends of head and medium among classes ordered by frequency, whatever their
            numbers, as MONICA's configurations give them: ``[2, 5]`` for ISIC.
        average: What ``average`` is: ``"class"``, the mean over classes, or ``"group"``, over groups, as in MONICA.
        ranking: Log AUROC and average precision too: ``"test"``, ``"always"`` or ``"never"``. They need all scores.
        network: Attribute of the module whose output are the logits (dotted), or ``"self"``; read only if the step
            returns no scores.

    Raises:
        ValueError: for another ``ranking``, or bounds that are no pair.
        UserError: if there are no class counts to make groups by, or a step gives no scores or targets.

    State, cost: counts; with ranking the scores of all samples.

    Source: MONICA, arXiv 2410.02010 (groups by index, group average); Liu et al., arXiv 1904.05160 (thresholds).

    Example:
        >>> from lightning.pytorch import Trainer
        >>> report = LongTailReport(index_bounds=[2, 5], average="group")
        >>> trainer = Trainer(callbacks=[report], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        many: int = 100,
        few: int = 20,
        index_bounds: list[int] | None = None,
        average: Average = "class",
        ranking: str = "test",
        network: str = "model",
    ) -> None:
        if ranking not in ("test", "always", "never"):
            raise ValueError(f"ranking must be 'test', 'always' or 'never', got {ranking!r}")
        if index_bounds is not None and len(index_bounds) != 2:
            raise ValueError(f"index_bounds are the ends of head and medium, got {index_bounds}")
        self.many, self.few, self.index_bounds = many, few, index_bounds
        self.average: Average = average
        self.ranking, self.network = ranking, network
        self._metrics: list[dict[str, Metric]] = []  # of each loader
        self._outputs: Outputs | None = None
        self._multilabel = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._start(trainer, pl_module, len(trainer.num_val_batches), self.ranking == "always")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._start(trainer, pl_module, len(trainer.num_test_batches), self.ranking != "never")

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self._count(outputs, batch, dataloader_idx)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        self._count(outputs, batch, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        self._log(trainer, pl_module, "val")

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log."""
        self._log(trainer, pl_module, "test")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hook off."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hook off."""
        self._stop()

    def _start(self, trainer: Trainer, pl_module: LightningModule, loaders: int, ranking: bool) -> None:
        self._stop()
        classes, groups = self._groups(trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
        kinds: dict[str, Any] = {"": GroupRanking} if ranking else {}
        self._multilabel = task_of(pl_module) == "multilabel"
        if not self._multilabel:
            kinds |= {"recall/": GroupRecall, "f1/": GroupF1}
        self._metrics = [
            {n: kind(classes, groups, self.average).to(pl_module.device) for n, kind in kinds.items()}
            for _ in range(loaders)
        ]
        self._outputs = Outputs(pl_module, self.network)

    def _groups(self, data: Any) -> tuple[int, ClassGroups]:
        """Return the number of classes and their groups."""
        inner: Any = data
        while not hasattr(inner, "class_groups") and isinstance(inner, DataModuleWrapper):
            inner = inner.data
        if self.index_bounds is None and hasattr(inner, "class_groups"):
            return inner.num_classes, inner.class_groups
        if not hasattr(data, "class_counts"):
            raise UserError(
                "LongTailReport groups classes by their training samples, but the data do not tell class_counts; pass "
                "a data module that has them."
            )
        counts = data.class_counts
        if self.index_bounds is not None:
            return len(counts), ClassGroups.by_rank(counts, *self.index_bounds)
        return len(counts), ClassGroups.by_count(counts, self.many, self.few)

    def _count(self, outputs: Any, batch: Any, loader: int) -> None:
        assert self._outputs is not None
        given = outputs if isinstance(outputs, Mapping) else {}
        scores = given.get("probability", given.get("logits"))
        probability = scores is None or "probability" in given
        if scores is None:
            scores = self._outputs.logits()
            several = scores.ndim == 2 and scores.shape[1] > 1 and not self._multilabel
            scores = precise(scores).softmax(1) if several else scores.sigmoid()
        scores = two_columns(scores, probability)
        target = batch_target(given if "target" in given else batch) if self._multilabel else None
        if target is None:
            target = class_target(given if "target" in given else batch, type(self).__name__)
        for metric in self._metrics[loader].values():
            metric.update(scores, target)

    def _log(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        for number, metrics in enumerate(self._metrics):
            suffix = f"/dataloader_idx_{number}" if len(self._metrics) > 1 else ""
            for prefix, metric in metrics.items():
                # a process may have had no batch, and for a loader without batches there is nothing to log
                if not trainer.strategy.reduce_boolean_decision(metric.update_called, all=False):
                    continue
                values = metric.compute()
                values = {f"{stage}/{prefix}{n}{suffix}": value for n, value in values.items() if not value.isnan()}
                # equal on all processes already; sync_dist spares a warning
                pl_module.log_dict(values, sync_dist=True, add_dataloader_idx=False)
        self._stop()

    def _stop(self) -> None:
        self._metrics = []
        if self._outputs is not None:
            self._outputs.remove()
            self._outputs = None

"""Clean test labels after every epoch: what noise does late in training, and what model selection hides."""

import json
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy

from medbolt.core import BalancedAccuracy, network_input
from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write
from medbolt.core.objective.averaging import refuse_earlier_averaging
from medbolt.core.objective.training_pass import device_batches, evaluation


class CleanTestCurve(Callback):
    """Evaluate the test split after every validation, and sum the curve up as LNMBench does.

    At the end of ``fit`` it logs and writes, for accuracy and balanced accuracy, ``last`` (the mean over the last
    ``last_epochs`` epochs, LNMBench's headline), ``selected`` (at the epoch of the best ``monitor``, which noisy
    validation labels select) and ``best`` (the largest of all: an oracle, which nobody has in practice).

    Nothing of it reaches training. Do not select methods or settings by it: it reads test labels.

    Args:
        last_epochs: Epochs in ``last``, of those that were validated.
        monitor: Logged validation metric, larger is better, that selects the epoch.
        filename: Name of the JSON file in the logger's folder, else in ``default_root_dir``.

    Raises:
        UserError: if the data module has no test split with class labels, ``monitor`` is not logged, the module does
            not return (B, C) logits, or (B,) and (B, 1) for two classes, or an averaging of weights stands before it.

    State, cost: one forward pass over the test split an epoch; the curve, which checkpoints keep. A ``fit`` that
    continues keeps the points of the epochs before it; one that begins anew begins a new curve.

    Source: the protocol of LNMBench, arXiv 2512.09315, as its public code has it, which selects by accuracy on noisy
    validation labels: ``monitor="val/accuracy"``. The default suits imbalanced classes.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[CleanTestCurve()], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self, last_epochs: int = 5, monitor: str = "val/balanced_accuracy", filename: str = "test_curve.json"
    ) -> None:
        if last_epochs < 1:
            raise ValueError(f"last_epochs must be at least 1, got {last_epochs}")
        self.last_epochs, self.monitor, self.filename = last_epochs, monitor, filename
        self.curve: list[dict[str, float]] = []
        self._scored: dict[str, float] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the epochs that this ``fit`` trains; a checkpoint's curve is restored later."""
        if stage == "fit":
            refuse_earlier_averaging(self, trainer, (WeightAveraging,), "puts the weights back before it tests them")
            self.curve = [point for point in self.curve if point["epoch"] < trainer.current_epoch]

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Evaluate the weights that were validated: an averaging of weights puts the others back hereafter."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._scored = self._evaluate(trainer, pl_module)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add an epoch to the curve, now that its monitor is known."""
        if self._scored is None:
            return
        scored, self._scored = self._scored, None
        if self.monitor not in trainer.callback_metrics:
            raise UserError(f"CleanTestCurve selects by '{self.monitor}', which is not logged; name another monitor.")
        point = {"epoch": float(trainer.current_epoch), "monitor": float(trainer.callback_metrics[self.monitor])}
        self.curve = [earlier for earlier in self.curve if earlier["epoch"] != point["epoch"]]
        self.curve.append(point | scored)
        for logger in trainer.loggers:
            logger.log_metrics({f"test_curve/{k}": v for k, v in self._scores(-1).items()}, trainer.global_step)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Sum up."""
        if not self.curve:
            return
        summary = self.summary()
        for logger in trainer.loggers:
            logger.log_metrics({f"test_curve/{k}": v for k, v in summary.items()}, trainer.global_step)
        log_dir = trainer.log_dir  # all processes ask
        if trainer.is_global_zero:
            with atomic_write(Path(log_dir or trainer.default_root_dir, self.filename)) as path:
                path.write_text(json.dumps({"summary": summary, "curve": self.curve}, indent=1), encoding="utf-8")

    def summary(self) -> dict[str, float]:
        """Return ``last``, ``selected`` and ``best`` of each metric, e.g. ``balanced_accuracy/last``."""
        selected = max(range(len(self.curve)), key=lambda epoch: self.curve[epoch]["monitor"])
        result = {}
        for name in self._scores(0):
            values = [point[name] for point in self.curve]
            late = values[-self.last_epochs :]
            result |= {
                f"{name}/last": sum(late) / len(late),
                f"{name}/selected": values[selected],
                f"{name}/best": max(values),
            }
        return result

    def state_dict(self) -> dict[str, Any]:
        """Return the curve."""
        return {"curve": self.curve}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self.curve = list(state_dict["curve"])

    def _scores(self, epoch: int) -> dict[str, float]:
        return {name: value for name, value in self.curve[epoch].items() if name not in ("epoch", "monitor")}

    def _evaluate(self, trainer: Trainer, module: LightningModule) -> dict[str, float]:
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not hasattr(data, "num_classes"):
            raise UserError("CleanTestCurve needs a data module that tells its num_classes, such as medbolt's.")
        metrics = MetricCollection(
            {
                "accuracy": MulticlassAccuracy(data.num_classes, average="micro"),
                "balanced_accuracy": BalancedAccuracy(data.num_classes),
            }
        ).to(module.device)
        with evaluation(trainer, module):
            for batch in device_batches(trainer, module, data.test_dataloader(), "test curve"):
                if not isinstance(batch, dict) or "target" not in batch:
                    raise UserError("CleanTestCurve needs test batches with a 'target'; use data with test labels.")
                predicted = _classes(module(network_input(batch)), batch["target"], data.num_classes)
                metrics.update(predicted, batch["target"])
        return {name: float(value) for name, value in metrics.compute().items()}


def _classes(logits: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the predicted classes, (B,)."""
    if target.ndim == 1 and logits.shape == (len(target), num_classes):
        return logits.argmax(1)
    if target.ndim == 1 and num_classes == 2 and logits.shape in (target.shape, (len(target), 1)):
        return (logits.flatten() > 0).long()
    raise UserError(
        f"CleanTestCurve compares one class a sample, but got logits of shape {tuple(logits.shape)} and targets "
        f"of shape {tuple(target.shape)} for {num_classes} classes; leave it out, or use a single-label task."
    )

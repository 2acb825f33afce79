"""The callback that writes report.html."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.files import check_writable
from medbolt.core.predictions.callback import PredictionTable
from medbolt.core.predictions.shards import on_rank_zero
from medbolt.core.predictions.table import Predictions
from medbolt.core.report.card import data_card
from medbolt.core.report.render import render_report
from medbolt.core.report.summary import run_summary
from medbolt.core.report.thumbnails import thumbnails


class Report(PredictionTable):
    """Write the prediction table of a test run, and one self-contained page about the run: ``report.html``.

    After ``fit`` the page has the training curves, the data card and the configuration; after ``test`` also metrics
    with 95 % intervals (by patient where the data name groups), tables by class and by domain, the confusion matrix,
    the reliability diagram, the most confident errors as pictures, and warnings: collapse, leakage, absent classes,
    miscalibration. Curves are what the module logs by epoch; they are checkpointed, so a resumed run shows all of them
    and so does a test of a checkpoint.

    Args:
        folder: Where to write; by default the logger's folder, else the trainer's ``default_root_dir``.
        filename: File name of the prediction table; ``{split}`` becomes ``test`` or ``predict``.
        network: Attribute of the module whose output are the logits (dotted), or ``"self"``; read only if the step
            returns no probability.
        method: What the table's column ``method`` says.
        dataset: What the table's column ``dataset`` says.
        title: Heading of the page.
        replicates: Bootstrap replicates of each interval.

    Raises:
        UserError: as :class:`PredictionTable`.

    State, cost: a few numbers an epoch; at the end of ``test`` some bootstrap replicates of the metrics.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[Report(title="Baseline")], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        filename: str = "predictions_{split}.parquet",
        network: str = "model",
        method: str = "",
        dataset: str = "",
        title: str = "Report",
        replicates: int = 2000,
    ) -> None:
        super().__init__(folder, filename, network, method, dataset)
        self.title = title
        self.replicates = replicates
        self.curves: dict[str, dict[int, float]] = {}
        """Value of each logged metric by epoch."""
        self._last: dict[str, Tensor] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the epochs that this ``fit`` trains; a checkpoint's curves are restored later."""
        if stage == "fit":
            now, self._last = trainer.current_epoch, {}
            kept = {name: {e: v for e, v in values.items() if e < now} for name, values in self.curves.items()}
            self.curves = {name: values for name, values in kept.items() if values}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find out before training whether the page can be written."""
        path = self._page(trainer)
        on_rank_zero(trainer, lambda: check_writable(path))

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was there before validation."""
        self._last = dict(trainer.callback_metrics)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what validation logged: a checkpoint may be saved before the epoch ends."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._record(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember what was logged in this epoch."""
        self._record(trainer)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page without predictions."""
        self._render(trainer, pl_module, [])

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the page with predictions."""
        self._render(trainer, pl_module, [self.written["test"]] if "test" in self.written else [])

    def state_dict(self) -> dict[str, Any]:
        """Return the curves."""
        return {"curves": {name: dict(values) for name, values in self.curves.items()}}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Continue the curves."""
        self.curves = {name: dict(values) for name, values in state_dict["curves"].items()}

    def _record(self, trainer: Trainer) -> None:
        for name, value in trainer.callback_metrics.items():
            # a metric that was not logged anew is still there, the same tensor as the last time
            if value is not self._last.get(name) and value.numel() == 1:
                self.curves.setdefault(name, {})[trainer.current_epoch] = float(value)
            self._last[name] = value

    def _render(self, trainer: Trainer, pl_module: LightningModule, tables: Sequence[Predictions]) -> None:
        path = self._page(trainer)
        on_rank_zero(trainer, lambda: self._write_page(trainer, pl_module, tables, path))

    def _write_page(
        self, trainer: Trainer, pl_module: LightningModule, tables: Sequence[Predictions], path: Path
    ) -> None:
        data = getattr(trainer, "datamodule", None)
        render_report(
            tables,
            path,
            self.title,
            curves=self.curves,
            data_card=data_card(data),
            summary=run_summary(trainer, pl_module),
            pictures=partial(thumbnails, data),
            replicates=self.replicates,
        )

    def _page(self, trainer: Trainer) -> Path:
        return self.output_folder(trainer) / "report.html"

"""The callback that writes the prediction table of a test or predict run."""

import os
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader

from medbolt.core.files import check_writable
from medbolt.core.predictions.capture import Outputs, batch_columns
from medbolt.core.predictions.context import class_names_of, domain_names_of, run_of, task_of
from medbolt.core.predictions.positions import positions
from medbolt.core.predictions.shards import gather, on_rank_zero
from medbolt.core.predictions.table import Predictions, write_predictions


class PredictionTable(Callback):
    """Write what the model says about every test sample to one Parquet file, which all statistics and reports read.

    Works with any classification LightningModule. Probability and target come from the dict that the step returns
    (keys ``probability`` and ``target``, as medbolt's tasks do), or else from the logits that ``network`` puts out and
    from the batch: its ``target``, ``label`` or ``labels``, or the second element of a tuple. The names of samples,
    patients and domains come from the batch (``index``, ``id``, ``group``, ``domain``) where it has them; other samples
    are named by their position in the data set. With several test loaders the column ``dataset`` tells them apart.

    On several processes each writes its share beside the table and rank 0 merges them; samples that a distributed
    sampler repeats to fill the last batch are counted once. The folder must be shared by all processes.

    Args:
        folder: Where to write; by default the logger's folder, else the trainer's ``default_root_dir``.
        filename: File name; ``{split}`` becomes ``test`` or ``predict``.
        network: Attribute of the module whose output are the logits (dotted), or ``"self"``; read only if the step
            returns no probability.
        method: What the column ``method`` says.
        dataset: What the column ``dataset`` says.

    Raises:
        UserError: if the folder cannot be written, or what a step gives is no classification.

    State, cost: the probabilities of all samples in host memory; one transfer to the host a batch.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[PredictionTable(method="baseline")], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        folder: Path | str | None = None,
        filename: str = "predictions_{split}.parquet",
        network: str = "model",
        method: str = "",
        dataset: str = "",
    ) -> None:
        self.folder = folder
        self.filename = filename
        self.network = network
        self.method = method
        self.dataset = dataset
        self.written: dict[str, Predictions] = {}
        """The tables written so far, by split; on rank 0 only."""
        self._outputs: Outputs | None = None

    def output_folder(self, trainer: Trainer) -> Path:
        """Return where to write. All processes must ask together."""
        log_dir = trainer.log_dir
        return Path(self.folder or log_dir or trainer.default_root_dir)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start collecting."""
        self._start(trainer, pl_module, "test", trainer.test_dataloaders)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start collecting."""
        self._start(trainer, pl_module, "predict", trainer.predict_dataloaders)

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect a batch."""
        self._collect(trainer, pl_module, outputs, batch, dataloader_idx, labelled=True)

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Collect a batch."""
        self._collect(trainer, pl_module, outputs, batch, dataloader_idx, labelled=False)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, pl_module, "test")

    def on_predict_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write the table."""
        self._write(trainer, pl_module, "predict")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the hook off."""
        self._stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Take the hook off: Lightning does not call teardown then."""
        self._stop()

    def _start(self, trainer: Trainer, pl_module: LightningModule, split: str, loaders: Any) -> None:
        self.written.pop(split, None)  # a run without a sample must not pass for the one before
        self._path = self.output_folder(trainer) / self.filename.replace("{split}", split)
        on_rank_zero(trainer, lambda: check_writable(self._path))
        self._outputs = Outputs(pl_module, self.network)
        self._loaders = CombinedLoader(loaders, "sequential").flattened
        self._names = list(loaders) if isinstance(loaders, Mapping) else [str(k) for k in range(len(self._loaders))]
        self._positions: dict[int, Iterator[int]] = {}
        self._rows: list[pd.DataFrame] = []

    def _stop(self) -> None:
        if self._outputs is not None:
            self._outputs.remove()
            self._outputs = None

    def _collect(
        self, trainer: Trainer, pl_module: LightningModule, step_output: Any, batch: Any, loader: int, labelled: bool
    ) -> None:
        assert self._outputs is not None
        columns = batch_columns(step_output, batch, self._outputs, labelled, task_of(pl_module))
        if "index" not in columns:
            if loader not in self._positions:
                self._positions[loader] = positions(self._loaders[loader], trainer.world_size)
            columns["index"] = np.array(list(islice(self._positions[loader], len(columns["p_0"]))))
        columns.setdefault("id", columns["index"].astype(str).astype(np.object_))
        self._rows.append(pd.DataFrame({"loader": loader, **columns}))

    def _write(self, trainer: Trainer, pl_module: LightningModule, split: str) -> None:
        rows = pd.concat(self._rows, ignore_index=True) if self._rows else pd.DataFrame()
        self._rows = []
        rows = gather(trainer, rows, self._path)
        table = on_rank_zero(trainer, lambda: self._write_merged(trainer, pl_module, split, rows))
        if table is not None:
            self.written[split] = table

    def _write_merged(
        self, trainer: Trainer, pl_module: LightningModule, split: str, rows: pd.DataFrame
    ) -> Predictions | None:
        if rows.empty:
            return None
        key = ["loader", "index"]
        rows = rows.drop_duplicates(key).sort_values(key, kind="stable", ignore_index=True)
        frame = rows.drop(columns=key).assign(split=split, method=self.method, dataset=self.dataset)
        if len(self._loaders) > 1:
            names = np.array(["/".join(filter(None, (self.dataset, name))) for name in self._names], np.object_)
            frame["dataset"] = names[rows["loader"].to_numpy()]
        if seed := os.environ.get("PL_GLOBAL_SEED"):
            frame["seed"] = int(seed)
        data = getattr(trainer, "datamodule", None)
        return write_predictions(
            frame,
            self._path,
            class_names_of(data, sum(name.startswith("p_") for name in frame.columns)),
            domain_names_of(data, frame),
            run_of(trainer, pl_module),
        )

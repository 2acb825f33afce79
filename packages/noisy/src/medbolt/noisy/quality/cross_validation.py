"""Out-of-fold predictions of a configured task: every training sample is predicted by a model that never saw it."""

import sys
import warnings
from argparse import ArgumentError
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.utilities.rank_zero import rank_zero_only
from lightning.pytorch import Callback, LightningDataModule, LightningModule

from medbolt.core.cli.explain import explain
from medbolt.core.cli.lightning import MedboltCLI
from medbolt.core.cli.own_code import find_own_code
from medbolt.core.data.base import ImageDataModule
from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write
from medbolt.core.predictions.callback import PredictionTable
from medbolt.core.predictions.table import Predictions, read_predictions
from medbolt.noisy.quality.division import Division, OwnDivision
from medbolt.noisy.quality.foreign_division import ForeignDivision
from medbolt.noisy.quality.issues import Issues, write_issues

_CHANGEABLE = ("trainer.logger", "trainer.default_root_dir", "trainer.enable_progress_bar", "ckpt_path", "weights_only")


class _Configured(MedboltCLI):
    """A configuration for ``fit``, its objects made, and nothing run."""

    def fit(self, **options: Any) -> None:
        """Leave it to the caller."""


class CrossValidation:
    """Train and predict fold by fold, and find label issues in what was predicted.

    The folder holds ``folds/<k>.parquet``, the predictions of fold k, once it is done; ``run.yaml``, what they belong
    to; and ``folds/<k>/``, the logs and checkpoints of its training. A run that was killed leaves out the folds that
    are done and resumes the one it was in from its newest checkpoint.

    Args:
        layers: Command line of ``medbolt fit``, without the word ``fit``.
        output: Folder of the results.
        folds: Number of folds.
        seed: Seed of the division into folds.
        network: Attribute of the module that puts out logits, if its ``predict_step`` returns no probability.
    """

    def __init__(
        self, layers: Sequence[str], output: Path, folds: int = 5, seed: int = 0, network: str = "model"
    ) -> None:
        self.layers, self.output, self.folds, self.seed, self.network = list(layers), output, folds, seed, network

    def run(self) -> int:
        """Do what is left to do, on all processes; write the results on rank 0.

        Raises:
            UserError: if the configuration does not parse, the data cannot be divided or have not one class a sample,
                or the folder holds folds of other data or of another configuration.
        """
        find_own_code()
        if self.folds < 2:
            raise UserError(f"--folds is {self.folds}; cross-validation needs at least 2.")
        main = getattr(rank_zero_only, "rank", 0) == 0  # before there is a trainer to ask
        division = self._prepared() if main else None
        # all processes look before any of them finishes a fold
        left = [fold for fold in range(self.folds) if not self._table(fold).exists()]
        for fold in left:
            if main:
                sys.stdout.write(f"fold {fold + 1} of {self.folds}\n")
                sys.stdout.flush()
            self._run_fold(fold)
        if division is not None:
            examined = division.examined([self._predicted(division, fold) for fold in range(self.folds)])
            issues = Issues.of(examined)
            write_issues(issues, examined, self.output, self.folds)
            sys.stdout.write(f"{issues.sentence}\nwritten: {self.output / 'report.html'}\n")
        return 0

    def _prepared(self) -> Division:
        """Return the data's division, once they and the folder are found fit for use."""
        configured = self._configured(self.output / "folds", [])
        division = self._division(configured)
        division.check(configured.model)
        config = yaml.safe_load(configured.parser.dump(configured.config, skip_none=False))["fit"]
        belongs_to = {"data": division.fingerprint, "--folds": self.folds, "--fold-seed": self.seed}
        self._check_folder(belongs_to | {key: value for key, value in _flat(config) if key not in _CHANGEABLE})
        return division

    def _check_folder(self, belongs_to: dict[str, Any]) -> None:
        path = self.output / "run.yaml"
        if not path.exists():
            with atomic_write(path) as temporary:
                temporary.write_text(yaml.safe_dump(belongs_to, sort_keys=False), encoding="utf-8")
            return
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        # through YAML, as what was found went
        wanted = yaml.safe_load(yaml.safe_dump(belongs_to))
        for key in [*wanted, *found]:
            if found.get(key) != wanted.get(key):
                what = "of other training data"
                if key != "data":
                    what = f"made with {key} {found.get(key)}, not {wanted.get(key)}"
                raise UserError(f"'{self.output}' holds folds {what}; choose another --output or delete the folder.")

    def _run_fold(self, fold: int) -> None:
        table, folder = self._table(fold), self._table(fold).with_suffix("")
        configured = self._configured(folder, [PredictionTable(table.parent, table.name, self.network)])
        model, trainer = configured.model, configured.trainer
        division = self._division(configured)
        data = division.fold(fold)
        saved = sorted(folder.glob("checkpoints/*.ckpt"), key=lambda path: path.stat().st_mtime_ns)
        trainer.fit(model, datamodule=data, ckpt_path=saved[-1] if saved else None)
        keeper: Any = trainer.checkpoint_callback
        chosen = keeper.best_model_path if getattr(keeper, "monitor", None) is not None else ""
        division.predict(trainer, model, data, chosen or None)

    def _division(self, configured: _Configured) -> Division:
        data = configured.datamodule
        if isinstance(data, ImageDataModule):
            return OwnDivision(data, self.folds, self.seed)
        return ForeignDivision(data, self.folds, self.seed, configured.trainer)

    def _configured(self, folder: Path, callbacks: list[Callback]) -> _Configured:
        logger = {"class_path": "lightning.pytorch.loggers.CSVLogger"}
        logger["init_args"] = {"save_dir": str(folder), "name": "", "version": ""}  # pyright: ignore[reportArgumentType]
        raising: dict[str, Any] = {"exit_on_error": False}
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "LightningCLI's args parameter is intended")
                return _Configured(
                    LightningModule,
                    LightningDataModule,
                    subclass_mode_model=True,
                    subclass_mode_data=True,
                    auto_configure_optimizers=False,
                    seed_everything_default=0,
                    save_config_callback=None,
                    trainer_defaults={"default_root_dir": str(folder), "logger": [logger], "callbacks": callbacks},
                    parser_kwargs={**raising, "fit": raising},
                    args=["fit", *self.layers],
                )
        except ArgumentError as error:
            raise UserError(explain(str(error))) from error

    def _predicted(self, division: Division, fold: int) -> Predictions:
        table, size = read_predictions(self._table(fold)), len(division.rows(fold))
        if len(table) != size:
            raise UserError(
                f"'{self._table(fold)}' has {len(table)} of {size} samples; delete it and predict whole folds, without "
                "fast_dev_run, limit_predict_batches or limit_test_batches."
            )
        return table

    def _table(self, fold: int) -> Path:
        return self.output / "folds" / f"{fold}.parquet"


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of a nested configuration by dotted key."""
    for key, value in config.items():
        if isinstance(value, Mapping) and f"{prefix}{key}" not in _CHANGEABLE:
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value

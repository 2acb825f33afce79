"""``medbolt fit|validate|test|predict``: LightningCLI with our defaults and links."""

import sys
from argparse import ArgumentError
from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, SaveConfigCallback

from medbolt.core.cli.checkpoint import check_checkpoint, refusal
from medbolt.core.cli.explain import explain
from medbolt.core.cli.layers import check_layers
from medbolt.core.cli.own_code import find_own_code
from medbolt.core.cli.parser import ConfigurationParser, refusals_of
from medbolt.core.errors import UserError

_CHECKPOINT_HELP = "Path or address of the checkpoint to go on from, or 'last' (newest last*.ckpt of the run's folder)."


class _SaveConfig(SaveConfigCallback):
    """Save the configuration of a run in its folder; without a logger it has none but the user's working directory."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if trainer.loggers:
            super().setup(trainer, pl_module, stage)


class MedboltCLI(LightningCLI):
    """LightningCLI in subclass mode; what the data know is linked into the model.

    ``data.num_classes`` goes to ``model.init_args.num_classes`` and to the network's
    ``model.init_args.model.init_args.num_classes``, where these exist; to the network of a binary task goes 1. A
    ``ValueError`` of a class that is made from the configuration is a :class:`~medbolt.core.UserError` that names it;
    one of training stays what it is.
    """

    parser: ConfigurationParser

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, parser_class=ConfigurationParser, **options)

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the arguments of each subcommand to leave out; ``ckpt_path`` is made here."""
        return {name: skipped | {"ckpt_path"} for name, skipped in LightningCLI.subcommands().items()}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **options: Any) -> LightningArgumentParser:
        """Add ``ckpt_path`` as text.

        Lightning has it a string or a path, and which is tried first is up to the cache of ``typing``, that is, to what
        was imported before. As a path neither ``last`` nor an address is what it was.
        """
        parser = super()._prepare_subcommand_parser(klass, subcommand, **options)
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=_CHECKPOINT_HELP)
        self._subcommand_method_arguments[subcommand].append("ckpt_path")
        return parser

    def instantiate_classes(self) -> None:
        """Make the objects, and show what one of them raises."""
        with self.parser.shown():
            super().instantiate_classes()

    def instantiate_trainer(self, **options: Any) -> Trainer:
        """Make the trainer, which is named like any other class."""
        with refusals_of("Trainer"):
            return super().instantiate_trainer(**options)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the data know into the model."""
        for target, compute in {
            "model.init_args.num_classes": _known,
            "model.init_args.model.init_args.num_classes": self._outputs,
        }.items():
            parser.link_arguments("data.num_classes", target, compute, apply_on="instantiate")

    def _outputs(self, num_classes: int) -> int:
        """Return how many outputs the network needs: of a binary task one."""
        model = self._get(self.config, "model")
        is_binary = model is not None and model.get("init_args", {}).get("task") == "binary"
        return 1 if is_binary and num_classes == 2 else _known(num_classes)

    def _dump_config(self) -> None:
        """Dump the configuration for the hyper-parameters, into which Lightning puts what was linked.

        A network with no argument but ``num_classes`` is dumped without ``init_args``, which it would look for.
        """
        super()._dump_config()
        network = self.config_dump.get("model", {}).get("init_args", {}).get("model")
        if isinstance(network, dict):
            network.setdefault("init_args", {})

    def _run_subcommand(self, subcommand: str) -> None:
        """Run, and name the checkpoint that cannot be loaded."""
        options = self.config[subcommand]
        path = options.get("ckpt_path")
        if path and options.get("weights_only") is not False:
            check_checkpoint(path)
        try:
            super()._run_subcommand(subcommand)
        except (RuntimeError, ValueError, KeyError, UnpicklingError) as error:
            sentence = refusal(path, error, type(self.model).__name__)
            if sentence is None:
                raise
            raise sentence from error

    def _set_seed(self) -> None:
        """Seed everything; a number may be too large or negative."""
        with refusals_of("seed_everything"):
            super()._set_seed()

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would let a checkpoint's hyper-parameters silently beat the user's configuration."""


def _known(num_classes: int) -> int:
    if num_classes < 1:
        raise UserError(
            "the data do not say how many classes there are; name the label column, or class_names (of data without "
            "labels: those that the network was trained with)."
        )
    return num_classes


def run(args: Sequence[str] | None = None) -> MedboltCLI:
    """Parse a command line of a trainer subcommand (``sys.argv`` by default) and run it.

    Modules in the working directory can be named in a ``class_path``.

    Raises:
        UserError: if the configuration does not parse.
    """
    find_own_code()
    raising = {"exit_on_error": False}
    try:
        return MedboltCLI(
            LightningModule,
            LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            seed_everything_default=0,
            save_config_callback=_SaveConfig,
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"logger": [_logger("CSVLogger", ""), _logger("TensorBoardLogger", "tensorboard")]},
            parser_kwargs={**raising, **dict.fromkeys(("fit", "validate", "test", "predict"), raising)},
            args=None if args is None else list(args),
        )
    except ArgumentError as error:
        check_layers(sys.argv[1:] if args is None else args)  # the parser does not say which one it could not read
        raise UserError(explain(str(error))) from error


def _logger(kind: str, folder: str) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": {"save_dir": "runs", "name": folder}}

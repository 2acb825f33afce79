"""``medbolt fit|validate|test|predict``: LightningCLI with our defaults and links."""

from argparse import ArgumentError
from collections.abc import Sequence
from pickle import UnpicklingError
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from medbolt.core.cli.explain import explain
from medbolt.core.cli.own_code import find_own_code
from medbolt.core.errors import UserError


class MedboltCLI(LightningCLI):
    """LightningCLI in subclass mode; what the data know is linked into the model.

    ``data.num_classes`` goes to ``model.init_args.num_classes`` and to the network's
    ``model.init_args.model.init_args.num_classes``, where these exist.
    """

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Link what the data know into the model."""
        for target in ("model.init_args.num_classes", "model.init_args.model.init_args.num_classes"):
            parser.link_arguments("data.num_classes", target, apply_on="instantiate")

    def _run_subcommand(self, subcommand: str) -> None:
        """Run, and name the checkpoint that cannot be loaded."""
        try:
            super()._run_subcommand(subcommand)
        except UnpicklingError as error:
            path = self.config[subcommand].get("ckpt_path")
            name = f"checkpoint '{path}'" if path else "a checkpoint"
            raise UserError(
                f"{name} is damaged or holds pickled Python objects, which could run code when loaded; use one of "
                "tensors and plain values."
            ) from error

    def _parse_ckpt_path(self) -> None:
        """Do nothing: LightningCLI would let a checkpoint's hyper-parameters silently beat the user's configuration."""


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
            save_config_kwargs={"overwrite": True},
            trainer_defaults={"logger": [_logger("CSVLogger", ""), _logger("TensorBoardLogger", "tensorboard")]},
            parser_kwargs={**raising, **dict.fromkeys(("fit", "validate", "test", "predict"), raising)},
            args=None if args is None else list(args),
        )
    except ArgumentError as error:
        raise UserError(explain(str(error))) from error


def _logger(kind: str, folder: str) -> dict[str, Any]:
    return {"class_path": f"lightning.pytorch.loggers.{kind}", "init_args": {"save_dir": "runs", "name": folder}}

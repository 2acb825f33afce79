"""Entry point of ``medbolt``: find the subcommand, run it, and answer a user's mistake with one sentence."""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Sequence
from importlib.metadata import entry_points, version

from medbolt.core.cli.command import Command
from medbolt.core.cli.plugins import contributions
from medbolt.core.errors import UserError, did_you_mean

_TRAINER_COMMANDS = {
    "fit": "Train, and validate along the way.",
    "validate": "Evaluate on the validation split.",
    "test": "Evaluate on the test split.",
    "predict": "Predict the test split.",
}


def main(args: Sequence[str] | None = None) -> int:
    """Run ``medbolt``.

    Args:
        args: Command line without the program's name; ``sys.argv`` by default.

    Returns:
        The exit code: 0, or 2 for a mistake of the user, told in one sentence on standard error. With the environment
        variable ``MEDBOLT_TRACEBACK=1`` the traceback is shown instead.
    """
    try:
        code = _dispatch(None if args is None else list(args))
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # of medbolt list | head; nor is there anybody to hear of what is still to be flushed
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = _sentence(error)
        if message is None or os.environ.get("MEDBOLT_TRACEBACK") == "1":
            raise
        sys.stderr.write(f"medbolt: error: {message}\n")
        return 2


def _dispatch(given: list[str] | None) -> int:
    args = sys.argv[1:] if given is None else given
    if args and args[0] in _TRAINER_COMMANDS:
        from medbolt.core.cli.lightning import run

        run(given)
        return 0
    commands = {point.name: point for point in entry_points(group="medbolt.commands")}
    if args and args[0] in commands:
        command: Command = commands[args[0]].load()
        whole = not command.takes_rest  # an abbreviation could be meant for whoever takes the rest
        parser = ArgumentParser(f"medbolt {command.name}", description=command.help, allow_abbrev=whole)
        command.configure(parser)
        arguments, rest = parser.parse_known_args(args[1:])
        if rest and not command.takes_rest:
            parser.error(f"unrecognized arguments: {' '.join(rest)}")
        arguments.rest = rest
        return command.run(arguments)
    if args and not args[0].startswith("-"):
        near = did_you_mean(args[0], [*_TRAINER_COMMANDS, *commands])
        raise UserError(f"there is no subcommand '{args[0]}'{near}; medbolt --help lists them.")
    contributed = {point.name: text for point, text in contributions("medbolt.commands", lambda p: p.load().help)}
    parser = _overview(_TRAINER_COMMANDS | contributed)
    parser.parse_args(args)
    parser.print_help()
    return 0


def _overview(commands: dict[str, str]) -> ArgumentParser:
    rows = "\n".join(f"  {name:<10}{text}" for name, text in commands.items())
    parser = ArgumentParser(
        "medbolt",
        usage="medbolt SUBCOMMAND ...",
        description=f"Robust medical-image models on PyTorch Lightning.\n\nsubcommands:\n{rows}",
        epilog="medbolt SUBCOMMAND --help tells more. Configuration layers compose:\n"
        "  medbolt fit -c lightning_configs/quickstart.yaml --trainer.max_epochs 3",
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"medbolt-core {version('medbolt-core')}")
    return parser


def _sentence(error: Exception) -> str | None:
    """Return what to tell the user, or ``None`` for an error that is not the user's."""
    if isinstance(error, UserError):
        # a loader's worker sends its traceback along; the sentence is its last line
        return _one_line(str(error).rsplit("UserError: ", 1)[-1])
    if isinstance(error, OSError) and error.filename is not None:
        remedy = "correct it" if isinstance(error, FileNotFoundError) else "choose another or make it accessible"
        return f"{error.strerror}: '{error.filename}'; {remedy}."
    if isinstance(error, FileNotFoundError):
        return f"{_one_line(str(error)).rstrip('.')}; correct the path."
    unknown_metric = isinstance(error, RuntimeError) and str(error).startswith("Early stopping conditioned on metric")
    if type(error).__name__ == "MisconfigurationException" or unknown_metric:
        return _one_line(str(error))
    return None


def _one_line(text: str) -> str:
    return " ".join(text.split())


if __name__ == "__main__":
    sys.exit(main())

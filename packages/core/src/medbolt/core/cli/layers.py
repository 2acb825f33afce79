"""Reading configuration layers by themselves, to say which one is wrong."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml

from medbolt.core.errors import UserError


def read_layer(path: Path) -> Any:
    """Return what a YAML file holds.

    Raises:
        UserError: if it is no valid YAML, with the place.
    """
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise UserError(f"{path} is no valid YAML ({where}{error.problem}); correct it.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no valid YAML ({str(error).splitlines()[0]}); correct it.") from error


def check_layers(args: Sequence[str]) -> None:
    """Read the files that a command line names with ``-c`` or ``--config``.

    Raises:
        UserError: for the first that is no valid YAML.
    """
    named = [following for option, following in pairwise(args) if option in ("-c", "--config")]
    named += [option.partition("=")[2] for option in args if option.startswith("--config=")]
    for path in map(Path, named):
        if path.is_file():
            read_layer(path)

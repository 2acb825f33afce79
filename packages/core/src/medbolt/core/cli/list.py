"""``medbolt list``: what is installed, with one line each."""

import inspect
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from importlib.metadata import EntryPoint
from types import ModuleType

from medbolt.core.cli.command import Command
from medbolt.core.cli.plugins import contributions
from medbolt.core.errors import UserError


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", default="", help="show only what has this word in its name or description")


def _run(arguments: Namespace) -> int:
    found = False
    for point, lines in contributions("medbolt.packages", partial(_lines, word=arguments.word.lower())):
        if not lines:
            continue
        found = True
        sys.stdout.write(f"{point.value} {point.dist.version if point.dist else ''}\n")
        width = max(map(len, lines)) + 2
        for name, line in lines.items():
            sys.stdout.write(f"  {name:<{width}}{line}\n")
    if not found:
        raise UserError(f"nothing installed has '{arguments.word}' in its name or description; medbolt list shows all.")
    return 0


def _lines(point: EntryPoint, word: str) -> dict[str, str]:
    package = point.load()
    lines = {name: _first_line(getattr(package, name)) for name in sorted(package.__all__)}
    plain = word.replace("-", "").replace(" ", "").replace("_", "")  # of co-teaching, the class is CoTeaching
    return {name: line for name, line in lines.items() if plain in name.lower() or word in line.lower()}


def _first_line(item: object) -> str:
    text = (inspect.getdoc(item) if not isinstance(item, ModuleType) else item.__doc__) or ""
    return text.split("\n\n")[0].replace("\n", " ")


command = Command("list", "List what is installed: data, methods, losses, scorers.", _configure, _run)

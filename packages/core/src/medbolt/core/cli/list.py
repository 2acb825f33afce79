"""``medbolt list``: what is installed, with one line each."""

import inspect
import sys
from argparse import ArgumentParser, Namespace
from functools import partial
from importlib.metadata import EntryPoint
from types import ModuleType

from medbolt.core.cli.command import Command
from medbolt.core.cli.plugins import contributions


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", default="", help="show only names that contain this word")


def _run(arguments: Namespace) -> int:
    for point, lines in contributions("medbolt.packages", partial(_lines, word=arguments.word.lower())):
        if not lines:
            continue
        sys.stdout.write(f"{point.value} {point.dist.version if point.dist else ''}\n")
        width = max(map(len, lines)) + 2
        for name, line in lines.items():
            sys.stdout.write(f"  {name:<{width}}{line}\n")
    return 0


def _lines(point: EntryPoint, word: str) -> dict[str, str]:
    package = point.load()
    return {name: _first_line(getattr(package, name)) for name in sorted(package.__all__) if word in name.lower()}


def _first_line(item: object) -> str:
    text = (inspect.getdoc(item) if not isinstance(item, ModuleType) else item.__doc__) or ""
    return text.split("\n\n")[0].replace("\n", " ")


command = Command("list", "List what is installed: data, methods, losses, scorers.", _configure, _run)

"""``medbolt list``: what is installed, with one line each."""

import inspect
import sys
from argparse import ArgumentParser, Namespace
from importlib import import_module
from importlib.metadata import entry_points
from types import ModuleType

from medbolt.core.cli.command import Command


def _configure(parser: ArgumentParser) -> None:
    parser.add_argument("word", nargs="?", default="", help="show only names that contain this word")


def _run(arguments: Namespace) -> int:
    for point in sorted(entry_points(group="medbolt.packages"), key=lambda point: point.name):
        package = import_module(point.value)
        names = [name for name in sorted(package.__all__) if arguments.word.lower() in name.lower()]
        if not names:
            continue
        sys.stdout.write(f"{point.value} {point.dist.version if point.dist else ''}\n")
        width = max(map(len, names)) + 2
        for name in names:
            sys.stdout.write(f"  {name:<{width}}{_first_line(getattr(package, name))}\n")
    return 0


def _first_line(item: object) -> str:
    text = (inspect.getdoc(item) if not isinstance(item, ModuleType) else item.__doc__) or ""
    return text.split("\n\n")[0].replace("\n", " ")


command = Command("list", "List what is installed: data, methods, losses, scorers.", _configure, _run)

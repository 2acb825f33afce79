"""What a package contributes to the command line."""

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """A subcommand of ``medbolt``, named by an entry point of the group ``medbolt.commands``.

    The module that holds it imports only light modules; heavy imports happen in ``run``.

    Args:
        name: The word after ``medbolt``.
        help: One line for ``medbolt --help``.
        configure: Adds the arguments to the subcommand's parser.
        run: Does the work and returns the exit code.
        takes_rest: Options that the parser does not know are no mistake; ``run`` finds them in ``arguments.rest``.

    Example:
        >>> def run(arguments: Namespace) -> int:
        ...     return 0
        >>> hello = Command("hello", "Say hello.", lambda parser: None, run)
    """

    name: str
    help: str
    configure: Callable[[ArgumentParser], None]
    run: Callable[[Namespace], int]
    takes_rest: bool = False

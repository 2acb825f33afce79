"""What installed packages contribute, of which a broken one must not take the others along."""

import sys
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint, entry_points
from typing import TypeVar

T = TypeVar("T")


def contributions(group: str, look: Callable[[EntryPoint], T]) -> Iterator[tuple[EntryPoint, T]]:
    """Yield the entry points of a group, by name, and what a look at each finds.

    One that fails is told in one sentence on standard error and passed over.

    Args:
        group: Group of entry points.
        look: Loads an entry point and returns what is wanted of it.

    Example:
        >>> dict((point.name, command.help) for point, command in contributions("medbolt.commands", EntryPoint.load))
        {'data': 'Check data, and prepare them for fast reading.', ...}
    """
    for point in sorted(entry_points(group=group), key=lambda point: point.name):
        try:
            found = look(point)
        except Exception as error:  # whatever the import of somebody's package does
            package = point.dist.name if point.dist else point.value
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            sys.stderr.write(
                f"medbolt: warning: {package} cannot be loaded ({reason}); install it anew or remove it.\n"
            )
        else:
            yield point, found

"""A user's own modules are found in the working directory, as ``python -m`` finds them."""

import sys
from pathlib import Path


def find_own_code() -> None:
    """Let ``class_path`` name modules in the working directory: a console script does not look there.

    Example:
        >>> find_own_code()
        >>> str(Path.cwd()) in sys.path
        True
    """
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.insert(0, here)

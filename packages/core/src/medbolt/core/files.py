"""Writing files so that nobody ever reads half of one."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from medbolt.core.errors import UserError


@contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that becomes ``path`` on success and disappears on failure.

    Folders are made as needed. A reader sees the old file or the new one, whatever happens in between.

    Args:
        path: The file to write or to replace.

    Yields:
        The path to write to.

    Raises:
        UserError: if the operating system refuses (no permission, no space, not a folder).

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "new" / "table.csv") as temporary:
        ...     _ = temporary.write_text("a,b")
        >>> (folder / "new" / "table.csv").read_text()
        'a,b'
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        temporary.replace(path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"cannot write '{path}' ({reason}); choose a writable folder with free space.") from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path: Path | str) -> None:
    """Find out now whether ``path`` can be written later.

    Raises:
        UserError: if the operating system refuses.

    Example:
        >>> import tempfile
        >>> check_writable(Path(tempfile.mkdtemp()) / "table.csv")
    """
    probe = Path(path).with_name(f".{Path(path).name}.probe")
    with atomic_write(probe) as temporary:
        temporary.touch()
    probe.unlink()

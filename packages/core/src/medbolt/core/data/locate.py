"""Where the data are: relative paths are looked up in the places that a user's data may be."""

import os
from pathlib import Path

from medbolt.core.errors import UserError, listed


def locate(path: Path | str) -> Path:
    """Find a data file or folder.

    A relative path is tried from the working folder, then from ``$MEDBOLT_DATA`` where that is set, so that a
    configuration can name its data without the folders of one machine.

    Args:
        path: File or folder; ``~`` is the home folder.

    Returns:
        The first path that exists.

    Raises:
        UserError: if there is none, naming the places.

    Example:
        >>> locate("nowhere.csv")
        Traceback (most recent call last):
        medbolt.core.errors.UserError: there is no nowhere.csv ...
    """
    wanted = Path(path).expanduser()
    folders = [Path()]
    if data := os.environ.get("MEDBOLT_DATA"):
        folders.append(Path(data))
    for folder in folders:
        if (place := folder.expanduser() / wanted).exists():
            return place
    if wanted.is_absolute():
        raise UserError(f"there is no {wanted}; correct the path.")
    raise UserError(
        f"there is no {wanted} in {listed(folder.expanduser().absolute() for folder in folders)}; correct the path or "
        "set MEDBOLT_DATA to the folder of your data."
    )

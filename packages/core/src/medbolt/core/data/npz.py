"""Arrays of npz files, read without ever unpickling."""

import zlib
from pathlib import Path
from zipfile import BadZipFile, ZipFile

import numpy as np

from medbolt.core.errors import UserError, did_you_mean, listed

DAMAGED = (OSError, ValueError, EOFError, BadZipFile, zlib.error)
"""What reading a damaged archive raises."""


def read_array(path: Path, name: str) -> np.ndarray:
    """Read one array of an npz file, never unpickling.

    Raises:
        UserError: if the file is missing or damaged, has no such array, or the array holds Python objects.
    """
    array_shape(path, name)
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return arrays[name]
    except DAMAGED as error:
        raise UserError(f"array '{name}' of {path} is damaged; copy the file anew.") from error


def array_shape(path: Path, name: str) -> tuple[int, ...]:
    """Return the shape of one array of an npz file from its header alone.

    Raises:
        UserError: if the file is missing or damaged, has no such array, or the array holds Python objects.
    """
    try:
        with ZipFile(path) as archive:
            names = [member.removesuffix(".npy") for member in archive.namelist()]
            if name not in names:
                hint = did_you_mean(name, names)
                raise UserError(f"{path} has no array '{name}'{hint}; it has {listed(names)}.")
            with archive.open(f"{name}.npy") as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
    except UserError:
        raise
    except FileNotFoundError:
        raise no_archive(path) from None
    except DAMAGED as error:
        raise UserError(f"{path} is no readable npz file; copy or save it anew.") from error
    if dtype.hasobject:
        raise UserError(
            f"array '{name}' of {path} holds pickled Python objects, which are never loaded; save it as numbers."
        )
    if not shape:
        raise UserError(f"array '{name}' of {path} is a single number; save one row a picture.")
    return shape


def no_archive(path: Path) -> UserError:
    """Return the error for an archive that is not there."""
    return UserError(f"there is no archive {path}; correct the path or the root folder.")

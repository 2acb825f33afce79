"""Pictures by name: files below a folder, members of zip archives, rows of npz arrays."""

import os
import re
from collections import defaultdict
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile

import numpy as np
from torch import Tensor

from medbolt.core.data.decode import array_to_image, array_to_mask, decode_image, decode_mask
from medbolt.core.data.npz import DAMAGED, array_shape, no_archive, read_array
from medbolt.core.errors import UserError

_IN_ARCHIVE = re.compile(r"(.*?\.(?:zip|npz))/(.+)", re.IGNORECASE | re.DOTALL)


class ImageFiles:
    """Pictures that a manifest names, decoded when asked for.

    A reference is a path relative to ``root`` (or absolute) that may lead through an archive::

        fundus/left.png                 a file
        images.zip/ISIC_0024310.jpg     a member of a zip file
        nodules.npz/images/12           row 12 of the array "images" of an npz file

    Archives are opened when first read, once a process, so that the object can be forked and pickled; an npz array is
    read whole and then shared with forked workers. Nothing is ever unpacked to disk or unpickled, and a member that
    points out of its archive is refused. See :mod:`medbolt.core.data.decode` for what becomes of grey, 16-bit,
    transparent and rotated images.

    Args:
        root: Folder that the references are relative to.
        references: One reference a row.
        mask: Decode as masks, (H, W) or (K, H, W) class indices, instead of (3, H, W) images.
        places: Where each row was named, for messages: ``"row 12 of labels.csv"``.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> np.savez(f"{folder.name}/scans.npz", images=np.zeros((2, 8, 8), dtype=np.uint8))
        >>> images = ImageFiles(folder.name, ["scans.npz/images/0", "scans.npz/images/1"])
        >>> len(images), images[1].shape
        (2, torch.Size([3, 8, 8]))
    """

    def __init__(
        self,
        root: Path | str,
        references: Sequence[str],
        mask: bool = False,
        places: Sequence[str] | None = None,
    ) -> None:
        self.root = Path(root)
        self.references = references
        self.places = places
        self._from_file, self._from_array = (decode_mask, array_to_mask) if mask else (decode_image, array_to_image)
        self._folders: dict[str, bool] = {}  # folders that are named like archives
        self._archives: dict[tuple[int, str], ZipFile] = {}
        self._arrays: dict[tuple[str, str], np.ndarray] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Leave open archives and loaded arrays behind: another process opens its own."""
        return self.__dict__ | {"_archives": {}, "_arrays": {}}

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.references)

    def __getitem__(self, row: int) -> Tensor:
        """Return picture ``row``: (3, H, W) uint8, or (H, W) or (K, H, W) for masks.

        Raises:
            UserError: if the picture is missing or cannot be decoded.
        """
        container, member = self._split(row)
        try:
            if container is None:
                return self._from_file(self.root / member)
            if container.lower().endswith(".npz"):
                return self._from_array(self._array_row(container, member))
            return self._from_file(BytesIO(self._zip(container).read(member)))
        except UserError:
            raise
        except (FileNotFoundError, IsADirectoryError, KeyError):
            raise self._missing_error([row]) from None
        except (*DAMAGED, RuntimeError) as error:
            raise UserError(f"{self._name(row)} {_reason(error)}.") from error

    def source(self, row: int) -> str:
        """Return what tells picture ``row`` from another: its reference and, of a plain file, the number of bytes."""
        container, member = self._split(row)
        try:
            return f"{member} {(self.root / member).stat().st_size}" if container is None else self.references[row]
        except OSError:
            return self.references[row]

    def missing(self) -> list[int]:
        """Return the rows without a file, member or array row, found without decoding anything."""
        by_container: dict[str | None, list[tuple[int, str]]] = defaultdict(list)
        for row in range(len(self)):
            container, member = self._split(row)
            by_container[container].append((row, member))
        missing: list[int] = []
        for container, members in by_container.items():
            if container is None:
                present = _present_files(self.root, {member for _, member in members})
            elif container.lower().endswith(".npz"):
                present = self._present_rows(container, {member for _, member in members})
            else:
                present = set(self._zip(container).NameToInfo)
            missing += [row for row, member in members if member not in present]
        return sorted(missing)

    def check(self) -> None:
        """Refuse to go on when pictures are missing.

        Raises:
            UserError: naming the first missing picture and how many there are.
        """
        if missing := self.missing():
            raise self._missing_error(missing)

    def _split(self, row: int) -> tuple[str | None, str]:
        reference = self.references[row]
        inside = _IN_ARCHIVE.fullmatch(reference)
        if inside is None or self._is_folder(inside[1]):
            return None, reference
        member = PurePosixPath(inside[2].replace("\\", "/"))
        if member.is_absolute() or ".." in member.parts or re.match("[A-Za-z]:", inside[2]):
            raise UserError(f"{self._name(row)} points out of its archive; name members by their path inside it.")
        return inside[1], inside[2]

    def _is_folder(self, name: str) -> bool:
        if name not in self._folders:
            self._folders[name] = (self.root / name).is_dir()
        return self._folders[name]

    def _name(self, row: int) -> str:
        return f"{self.references[row]}" + (f" ({self.places[row]})" if self.places else "")

    def _missing_error(self, rows: list[int]) -> UserError:
        others = f" and {len(rows) - 1} more" if len(rows) > 1 else ""
        return UserError(
            f"{self._name(rows[0])}{others} not found in {self.root}; correct the name or the root folder."
        )

    def _zip(self, container: str) -> ZipFile:
        key = (os.getpid(), container)  # a forked process must not share the parent's file position
        if key not in self._archives:
            try:
                self._archives[key] = ZipFile(self.root / container)
            except FileNotFoundError:
                raise no_archive(self.root / container) from None
            except (BadZipFile, OSError) as error:
                raise UserError(f"{self.root / container} is no readable zip archive; copy it anew.") from error
        return self._archives[key]

    def _array_row(self, container: str, member: str) -> np.ndarray:
        name, _, row = member.rpartition("/")
        if (container, name) not in self._arrays:
            self._arrays[container, name] = read_array(self.root / container, name)
        array = self._arrays[container, name]
        if not row.isdigit() or int(row) >= len(array):
            raise KeyError(member)
        return array[int(row)]

    def _present_rows(self, container: str, members: set[str]) -> set[str]:
        sizes = {name: array_shape(self.root / container, name)[0] for name in {m.rpartition("/")[0] for m in members}}
        split = {member: member.rpartition("/") for member in members}
        return {m for m, (name, _, row) in split.items() if row.isdigit() and int(row) < sizes[name]}


def _present_files(root: Path, names: set[str]) -> set[str]:
    by_folder: dict[Path, list[str]] = defaultdict(list)
    for name in names:
        by_folder[(root / name).parent].append(name)
    present: set[str] = set()
    for folder, members in by_folder.items():
        files = {entry.name for entry in os.scandir(folder) if not entry.is_dir()} if folder.is_dir() else set()
        present.update(name for name in members if PurePosixPath(name).name in files)
    return present


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, RuntimeError):
        return "is encrypted or compressed in a way that cannot be read; pack its archive anew without"
    return "cannot be read; replace it or remove it from the data"

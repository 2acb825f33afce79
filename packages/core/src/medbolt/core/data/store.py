"""The prepared store: decoded, resized pictures in flat arrays that training reads at memory speed."""

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

from medbolt.core.data.dataset import ImageDataset, Images
from medbolt.core.data.locate import locate
from medbolt.core.errors import UserError, listed
from medbolt.core.files import atomic_write

_FORMAT = 1


@dataclass(frozen=True)
class StorePlan:
    """What a store holds; two runs with equal plans write the same store.

    A store is a folder with one ``<layer>.npy`` a layer, uint8 of shape (N, *shape), and ``store.json``, this plan,
    which is put there last: where it is, the arrays are complete. Until then the plan is called ``unfinished.json``,
    and the arrays' files are as long as there are finished rows, so that a killed run goes on where it was.

    Args:
        ids: N names by row.
        layers: Shape of one row by layer: ``{"image": [3, 224, 224]}``.
        options: How the pictures were made.
        format: Version of this format.
    """

    ids: list[str]
    layers: dict[str, list[int]]
    options: dict[str, str | int | bool]
    format: int = _FORMAT

    @property
    def size(self) -> int:
        """Bytes of all rows."""
        return len(self.ids) * sum(math.prod(shape) for shape in self.layers.values())


class StoreImages:
    """One layer of a store, as a source of pictures.

    The array is mapped when first read, once a process; pages are shared by all processes and never written.

    Args:
        path: The layer's ``.npy`` file.
        rows: Row of the store for each picture.
    """

    def __init__(self, path: Path, rows: np.ndarray) -> None:
        self.path, self.rows = path, rows
        self._array: np.ndarray | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Leave the mapping behind: pickling it would copy the array."""
        return self.__dict__ | {"_array": None}

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        """Return a copy of picture ``row``."""
        if self._array is None:
            self._array = np.asarray(np.load(self.path, mmap_mode="r", allow_pickle=False))
        return torch.from_numpy(self._array[self.rows[row]].copy())


def with_store(dataset: ImageDataset, path: Path | str) -> ImageDataset:
    """Return the data set with its images and layers read from a store.

    Args:
        dataset: The data set; only its ids and the names of its layers are read.
        path: Folder made by ``medbolt data prepare``.

    Returns:
        The same samples, with the same ``index``.

    Raises:
        UserError: if there is no finished store, or it lacks a sample or a layer.
    """
    folder = locate(path)
    plan = read_plan(folder)
    place = {name: row for row, name in enumerate(plan.ids)}
    if absent := [name for name in dataset.ids if name not in place]:
        raise UserError(
            f"the store {folder} lacks {len(absent)} of {len(dataset)} samples, such as '{absent[0]}'; prepare these "
            "data anew, into another folder."
        )
    if absent := [layer for layer in dataset.layers if layer not in plan.layers]:
        raise UserError(f"the store {folder} has no {listed(absent)}; prepare the data anew with them.")
    rows = np.zeros(dataset.base_size, dtype=np.int64)
    rows[dataset.rows.numpy()] = [place[name] for name in dataset.ids]
    layers: Mapping[str, Images] = {name: StoreImages(folder / f"{name}.npy", rows) for name in dataset.layers}
    return replace(dataset, images=StoreImages(folder / "image.npy", rows), layers=layers)


def read_plan(folder: Path) -> StorePlan:
    """Return the plan of a finished store.

    Raises:
        UserError: if the folder holds none, an unfinished one, or one of a later version.
    """
    if not (folder / "store.json").exists():
        unfinished = (folder / "unfinished.json").exists()
        what = "holds an unfinished store; run the preparation again to go on" if unfinished else "holds no store"
        raise UserError(f"{folder} {what} (medbolt data prepare makes one).")
    return _load_plan(folder / "store.json")


class StoreWriter:
    """Write a store row by row, going on after the rows that an earlier run has finished.

    Args:
        folder: The store's folder; made when absent.
        plan: What to write.

    Raises:
        UserError: if the folder holds another store or other files, cannot be written, or the disk is too small.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> writer = StoreWriter(Path(folder.name) / "store", StorePlan(["a", "b"], {"image": [3, 2, 2]}, {}))
        >>> with writer:
        ...     for row in range(writer.start, 2):
        ...         writer.append({"image": torch.full((3, 2, 2), row, dtype=torch.uint8)})
        >>> int(StoreImages(Path(folder.name) / "store/image.npy", np.array([1]))[0].sum())
        12
    """

    def __init__(self, folder: Path, plan: StorePlan) -> None:
        self.folder, self.plan = folder, plan
        self.start = 0
        """Rows that are finished already."""
        self._files: dict[str, BinaryIO] = {}
        self._open_files = ExitStack()
        self._is_complete = False

    def __enter__(self) -> "StoreWriter":
        """Open the store for writing and find out where to go on."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if (self.folder / "store.json").exists():
                self._require_same(_load_plan(self.folder / "store.json"))
                self.start, self._is_complete = len(self.plan.ids), True
            else:
                self._open()
        except OSError as error:
            self._open_files.close()
            raise self._write_error(error) from error
        return self

    def append(self, row: Mapping[str, Tensor]) -> None:
        """Write the next row.

        Raises:
            UserError: if a picture has another shape than planned, or the disk is full.
        """
        for layer, shape in self.plan.layers.items():
            if list(row[layer].shape) != shape:
                raise UserError(
                    f"{layer} of '{self.plan.ids[self.start]}' has shape {tuple(row[layer].shape)} instead of "
                    f"{tuple(shape)}; all rows of a store need the same."
                )
        try:
            for layer, file in self._files.items():
                file.write(row[layer].contiguous().numpy().data)
        except OSError as error:
            raise self._write_error(error) from error
        self.start += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Declare the store complete if it is; else keep the finished rows for the next run."""
        try:
            self._close(complete=kind is None and self.start == len(self.plan.ids))
        except OSError as error:
            if kind is None:
                raise self._write_error(error) from error

    def _open(self) -> None:
        unfinished = self.folder / "unfinished.json"
        if unfinished.exists():
            self._require_same(_load_plan(unfinished))
        elif any(self.folder.iterdir()):
            raise UserError(f"{self.folder} holds other files; choose an empty folder for the store.")
        present = sum(file.stat().st_size for file in self.folder.glob("*.npy"))
        if shutil.disk_usage(self.folder).free < self.plan.size - present:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with atomic_write(unfinished) as temporary:
            temporary.write_text(json.dumps(asdict(self.plan), indent=1), encoding="utf-8")
        finished = []
        for layer, shape in self.plan.layers.items():
            path = self.folder / f"{layer}.npy"
            path.touch()
            file = self._files[layer] = self._open_files.enter_context(path.open("r+b"))
            _lock(file, self.folder)
            header = _header((len(self.plan.ids), *shape))
            finished.append((path.stat().st_size - len(header)) // math.prod(shape))
            file.write(header)
        self.start = max(0, min(finished))
        for layer, shape in self.plan.layers.items():
            file = self._files[layer]
            file.seek(self.start * math.prod(shape), os.SEEK_CUR)
            file.truncate()

    def _close(self, complete: bool) -> None:
        with self._open_files:
            for file in self._files.values():
                file.flush()
                if complete:
                    os.fsync(file.fileno())
        if complete and not self._is_complete:
            (self.folder / "unfinished.json").replace(self.folder / "store.json")

    def _require_same(self, found: StorePlan) -> None:
        if found != self.plan:
            raise UserError(
                f"{self.folder} holds a store of other images or options; choose another folder or delete this one."
            )

    def _write_error(self, error: OSError) -> UserError:
        if error.errno in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            return UserError(
                f"there is no space for the store {self.folder}, which needs {self.plan.size / 1e9:.3g} GB; free some, "
                "then run the preparation again to go on."
            )
        return UserError(f"{self.folder} cannot be written ({error.strerror}); choose another folder.")


def _header(shape: Sequence[int]) -> bytes:
    file = BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": tuple(shape)})
    return file.getvalue()


def _lock(file: BinaryIO, folder: Path) -> None:
    if sys.platform == "win32":
        return
    import fcntl

    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # not inherited by workers, let go however the process ends
    except (BlockingIOError, PermissionError) as error:
        raise UserError(f"another process is writing the store {folder}; wait for it to end.") from error


def _load_plan(path: Path) -> StorePlan:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise UserError(f"{path} is of store format {content['format']}; read it with a newer medbolt-core.")
        return StorePlan(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged; delete the store and prepare it anew.") from error

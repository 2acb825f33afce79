"""Writing a prepared store, so that a killed run goes on and nothing half-written is read."""

import errno
import json
import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from torch import Tensor

from medbolt.core.data.store import StorePlan, load_plan
from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write


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
        >>> np.load(Path(folder.name) / "store/image.npy").sum(axis=(1, 2, 3))
        array([ 0, 12], dtype=uint64)
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
            with self._open_files:  # closed again if anything goes wrong
                self.folder.mkdir(parents=True, exist_ok=True)
                if not self._is_finished():
                    self._open()
                self._open_files = self._open_files.pop_all()
        except OSError as error:
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

    def _is_finished(self) -> bool:
        if not (self.folder / "store.json").exists():
            return False
        self._require_same(load_plan(self.folder / "store.json"), len(self.plan.ids))
        self.start, self._is_complete = len(self.plan.ids), True
        return True

    def _open(self) -> None:
        paths = {layer: self.folder / f"{layer}.npy" for layer in self.plan.layers}
        is_begun = self._is_begun()
        if not is_begun and any(path not in paths.values() or path.stat().st_size for path in self.folder.iterdir()):
            raise UserError(f"{self.folder} holds other files; choose an empty folder for the store.")
        present = sum(file.stat().st_size for file in self.folder.glob("*.npy"))
        if shutil.disk_usage(self.folder).free < self.plan.size - present:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        for layer, path in paths.items():
            path.touch()
            self._files[layer] = self._open_files.enter_context(path.open("r+b"))
            _lock(self._files[layer], self.folder)
        # only now is nobody else writing, so the plan is looked for again
        if self._is_finished():
            self._files.clear()
            self._open_files.close()
            return
        self.start = self._finished_rows()
        self._is_begun()  # refuses what was begun of other pictures
        with atomic_write(self.folder / "unfinished.json") as temporary:  # anew, for replaced pictures change it
            temporary.write_text(json.dumps(asdict(self.plan), indent=1), encoding="utf-8")
        self._go_on()

    def _is_begun(self) -> bool:
        if not (self.folder / "unfinished.json").exists():
            return False
        self._require_same(load_plan(self.folder / "unfinished.json"), self.start)
        return True

    def _finished_rows(self) -> int:
        """Return the first row that some layer lacks."""
        finished = []
        for layer, shape in self.plan.layers.items():
            header = _header((len(self.plan.ids), *shape))
            size = os.fstat(self._files[layer].fileno()).st_size
            finished.append((size - len(header)) // math.prod(shape))
        return max(0, min(finished))

    def _go_on(self) -> None:
        """Write the headers and drop what lies after the finished rows."""
        for layer, shape in self.plan.layers.items():
            file = self._files[layer]
            file.write(_header((len(self.plan.ids), *shape)))
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

    def _require_same(self, found: StorePlan, rows: int) -> None:
        if not self.plan.agrees(found, rows):
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

"""The prepared store: decoded, resized pictures in flat arrays that training reads at memory speed."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medbolt.core.data.dataset import ImageDataset, Images
from medbolt.core.data.locate import locate
from medbolt.core.errors import UserError, listed

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
        sources: N fingerprints of where the pictures come from: their references and, of plain files, the sizes. Empty
            where this is not known, as in stores of earlier versions.
        format: Version of this format.
    """

    ids: list[str]
    layers: dict[str, list[int]]
    options: dict[str, str | int | bool]
    sources: list[str] = field(default_factory=list)
    format: int = _FORMAT

    def agrees(self, other: "StorePlan", rows: int) -> bool:
        """Return whether both plans write the same store, up to a row as far as the pictures' sources go.

        The sources of rows yet to be written may differ: there a damaged picture was replaced.
        """
        same_sources = not self.sources or not other.sources or self.sources[:rows] == other.sources[:rows]
        return same_sources and replace(self, sources=[]) == replace(other, sources=[])

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
    return load_plan(folder / "store.json")


def load_plan(path: Path) -> StorePlan:
    """Read a plan's file.

    Raises:
        UserError: if it is damaged or of another version.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != _FORMAT:
            raise UserError(f"{path} is of store format {content['format']}; read it with a newer medbolt-core.")
        return StorePlan(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{path} is damaged; delete the store and prepare it anew.") from error

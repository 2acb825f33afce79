"""Noise of people: labels that annotators gave."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from medbolt.core.data.locate import locate
from medbolt.core.data.manifest import read_manifest
from medbolt.core.data.npz import read_array
from medbolt.core.errors import UserError, listed
from medbolt.noisy.noise.base import Labelled, LabelNoise

_NOT_RATED = ("", "nan", "-1")


class HumanNoise(LabelNoise):
    """Take the labels that annotators gave, one or several a sample.

    The table is a CSV or Parquet file with a column a rater, or an npz file with an array a rater, (N,) or (N, 1), and
    a row a sample. Empty cells, NaN and -1 mean that the rater did not label the sample. Class indices may be written
    as floats, as a table with empty cells often has them: 1.0 is 1.

    Args:
        labels: The table; see :func:`~medbolt.core.data.locate.locate`.
        raters: Columns or arrays with a rater's labels each.
        id: Column or array with the samples' ids; without it their names are the numbers of the rows, from 0.
        choice: Which label counts where raters differ: that of a ``"random"`` rater, the ``"majority"`` (a random one
            of the most frequent), or the ``"first"`` rater who labelled the sample.
        class_names: Names by class index, where the labels are names.

    Raises:
        ValueError: if there are no raters or ``choice`` is unknown.
        UserError: at the call, naming the file or array that is none of these, the column that is missing, the label
            that is no class, the sample that is not in the table or that nobody labelled, or the id that is repeated.

    Source: several labels a sample as in CIFAR-N, Wei et al., ICLR 2022 (arXiv 2110.12088).

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> np.savez(f"{folder.name}/labels.npz", ann=[0, 1, -1], bob=[0, 2, 2])
        >>> HumanNoise(f"{folder.name}/labels.npz", ["ann", "bob"], choice="first")(torch.tensor([0, 1, 2]), 3)
        tensor([0, 1, 2])
    """

    def __init__(
        self,
        labels: Path | str,
        raters: list[str],
        id: str | None = None,
        choice: Literal["random", "majority", "first"] = "random",
        class_names: list[str] | None = None,
    ) -> None:
        if not raters:
            raise ValueError("raters must name at least one column")
        if choice not in ("random", "majority", "first"):
            raise ValueError(f"choice must be random, majority or first, got {choice!r}")
        self.labels, self.raters, self.id = labels, raters, id
        self.choice, self.class_names = choice, class_names

    def probabilities(self, samples: Labelled) -> Tensor:
        """Return the probabilities of the labels that each sample may get, (N, K) float64."""
        classes = self._classes(samples)
        votes = torch.nn.functional.one_hot(classes + 1, samples.num_classes + 1)[:, :, 1:].double()  # (N, R, K)
        rated = votes.sum((1, 2))
        if (rated == 0).any():
            name = samples.ids[int((rated == 0).nonzero()[0])]
            raise UserError(f"no rater of {Path(self.labels).name} labelled sample '{name}'; leave it out.")
        if self.choice == "first":
            first = (classes >= 0).int().argmax(1)
            return votes[torch.arange(len(votes)), first]
        counts = votes.sum(1)
        if self.choice == "majority":
            counts = (counts == counts.amax(1, keepdim=True)).double()
        return counts / counts.sum(1, keepdim=True)

    def _classes(self, samples: Labelled) -> Tensor:
        """Return the raters' labels of the samples, (N, R) int64, -1 where there is none."""
        columns = self._read()
        names = columns.pop(0)
        row_of = {name: row for row, name in enumerate(names)}
        if twice := next((name for row, name in enumerate(names) if row_of[name] != row), None):
            raise UserError(
                f"{Path(self.labels).name} has several rows with the {self.id} '{twice}'; make one row a sample, "
                "with a column a rater."
            )
        if missing := next((name for name in samples.ids if name not in row_of), None):
            raise UserError(
                f"{Path(self.labels).name} has no labels of sample '{missing}'; name the column of ids with id=..., "
                "or leave the sample out."
            )
        rows = np.array([row_of[name] for name in samples.ids], dtype=np.int64)
        class_names = (self.class_names or [str(k) for k in range(samples.num_classes)])[: samples.num_classes]
        number = {name: k for k, name in enumerate(class_names)} | dict.fromkeys(_NOT_RATED, -1)
        result = np.empty((len(rows), len(self.raters)), dtype=np.int64)
        for rater, column in enumerate(columns):
            values, inverse = np.unique(np.asarray(column, dtype=str)[rows], return_inverse=True)
            labels = [value if value in number else _whole(value) for value in values.tolist()]
            if unknown := next((label for label in labels if label not in number), None):
                raise UserError(
                    f"rater '{self.raters[rater]}' of {Path(self.labels).name} gave the unknown label '{unknown}'; the "
                    f"classes are {listed(class_names)}."
                )
            result[:, rater] = np.array([number[label] for label in labels])[inverse]
        return torch.from_numpy(result)

    def _read(self) -> list[list[str]]:
        """Return the ids and each rater's labels, as texts."""
        path, wanted = locate(self.labels), ([] if self.id is None else [self.id]) + self.raters
        if path.suffix == ".npz":
            arrays = {name: read_array(path, name) for name in wanted}
            rows = len(arrays[wanted[0]])
            if wrong := next((name for name, array in arrays.items() if array.shape not in ((rows,), (rows, 1))), None):
                raise UserError(
                    f"array '{wrong}' of {path.name} has shape {arrays[wrong].shape}; save one array a rater, all with "
                    f"as many rows as '{wanted[0]}', which has {rows}, and one label a row."
                )
            columns = [arrays[name].reshape(rows).astype(str).tolist() for name in wanted]
        else:
            table = read_manifest(path)
            columns = [[cell or "" for cell in table.cells(name)] for name in wanted]
        return columns if self.id is not None else [[str(row) for row in range(len(columns[0]))], *columns]


def _whole(label: str) -> str:
    """Return a whole number that is written as a float without its point, and any other label as it is."""
    try:
        number = float(label)
    except ValueError:
        return label
    return str(int(number)) if number.is_integer() else label

"""Pictures made of other pictures: some of their rows, or several side by side."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from medbolt.core.data.dataset import ImageDataset, Images
from medbolt.core.data.source import source_of


class SelectedImages:
    """Some rows of a source, numbered anew: the images of one split of a manifest.

    Example:
        >>> SelectedImages([torch.zeros(1), torch.ones(1)], np.array([1]))[0]
        tensor([1.])
    """

    def __init__(self, images: Images, rows: np.ndarray) -> None:
        self.images, self.rows = images, rows

    def __len__(self) -> int:
        """Return the number of selected rows."""
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        """Return the picture of the selected row."""
        return self.images[int(self.rows[row])]

    def source(self, row: int) -> str:
        """Return what tells the picture of the selected row from another."""
        return source_of(self.images, int(self.rows[row]))


class StackedImages:
    """The pictures of several sources stacked along a new first axis: one mask a rater.

    Example:
        >>> StackedImages([[torch.zeros(4, 4)], [torch.ones(4, 4)]])[0].shape
        torch.Size([2, 4, 4])
    """

    def __init__(self, sources: Sequence[Images]) -> None:
        self.sources = sources

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.sources[0])

    def __getitem__(self, row: int) -> Tensor:
        """Return the stacked pictures of a row."""
        return torch.stack([source[row] for source in self.sources])

    def source(self, row: int) -> str:
        """Return what tells the pictures of a row from others."""
        return "\n".join(source_of(source, row) for source in self.sources)


def rows_of(whole: ImageDataset, rows: Sequence[int] | np.ndarray) -> ImageDataset:
    """Return some rows of a data set as a base set of their own, numbered from 0.

    Example:
        >>> images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 4
        >>> rows_of(ImageDataset(images, None, ids=list("abcd")), [2, 3]).rows
        tensor([0, 1])
    """
    rows = np.asarray(rows)
    layers = {key: SelectedImages(layer, rows) for key, layer in whole.layers.items()}
    return replace(whole.select(rows), images=SelectedImages(whole.images, rows), layers=layers, index=None)

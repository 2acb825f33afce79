"""A data set of images with the labels and names that methods need, readable without decoding an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from torchvision import tv_tensors

from medbolt.core.data.sampler import Draw
from medbolt.core.randomness import seeded


class Images(Protocol):
    """Anything that yields one uint8 picture by row: files, archive members, an array, a prepared store."""

    def __len__(self) -> int:
        """Return the number of pictures."""
        ...

    def __getitem__(self, row: int, /) -> Tensor:
        """Return picture ``row`` as a uint8 tensor: (3, H, W), or (H, W) and (K, H, W) for masks."""
        ...


@dataclass(frozen=True, eq=False)
class ImageDataset(Dataset[dict[str, Any]]):
    """Images with targets, names, groups and domains; wrappers change a copy of it, never the original.

    All columns have one entry a sample. ``index`` says which row of ``images`` (and of every layer) a sample is; it is
    the position in the base set and stays with the sample through :meth:`select`.

    Args:
        images: Source of the pictures, one row a sample of the base set.
        targets: (N,) int64 class indices or (N, C) float soft or multi-label targets; ``None`` without labels.
        ids: N stable names.
        groups: N names of what a split must not tear apart (patient, lesion).
        domains: (N,) int64 acquisition sources.
        texts: N sentences.
        layers: Further pictures by batch key (``mask``, ``raters``, ``target`` for segmentation), transformed together
            with the image.
        index: (N,) int64 rows in the base set; all of them by default.
        transform: Called with a dict of ``tv_tensors`` (``image`` and the layers); its result joins the sample. Its
            torch randomness is a function of the draw (see :class:`~medbolt.core.data.sampler.Draw`).

    Example:
        >>> images = [torch.zeros(3, 8, 8, dtype=torch.uint8)] * 4
        >>> data = ImageDataset(images, torch.tensor([0, 1, 0, 1]), ids=list("abcd"))
        >>> data.select([3])[0]["id"], int(data.select([3])[0]["index"])
        ('d', 3)
    """

    images: Images
    targets: Tensor | None
    ids: Sequence[str]
    groups: Sequence[str] | None = None
    domains: Tensor | None = None
    texts: Sequence[str] | None = None
    layers: Mapping[str, Images] = field(default_factory=dict)
    index: Tensor | None = None
    transform: nn.Module | None = None

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.ids)

    @property
    def base_size(self) -> int:
        """Number of rows of the base set: every ``index`` is below it."""
        return len(self.images)

    @property
    def rows(self) -> Tensor:
        """(N,) int64 positions in the base set."""
        return torch.arange(len(self)) if self.index is None else self.index

    def __getitem__(self, position: int) -> dict[str, Any]:
        """Return one sample of the batch contract; a :class:`Draw` also seeds its transform."""
        row = int(position if self.index is None else self.index[position])
        picture: dict[str, Any] = {"image": tv_tensors.Image(self.images[row])}
        picture |= {key: tv_tensors.Mask(layer[row]) for key, layer in self.layers.items()}
        if self.transform is not None and isinstance(position, Draw):
            with seeded(position.seed):
                picture = self.transform(picture)
        elif self.transform is not None:
            picture = self.transform(picture)
        sample: dict[str, Any] = {
            key: value.as_subclass(Tensor) if isinstance(value, tv_tensors.TVTensor) else value
            for key, value in picture.items()
        }
        if self.targets is not None:
            sample["target"] = self.targets[position]
        sample |= {"index": row, "id": self.ids[position]}
        if self.groups is not None:
            sample["group"] = self.groups[position]
        if self.domains is not None:
            sample["domain"] = self.domains[position]
        if self.texts is not None:
            sample["text"] = self.texts[position]
        return sample

    def select(self, positions: Sequence[int] | np.ndarray | Tensor) -> "ImageDataset":
        """Return the samples at positions (repeats allowed) or of a boolean mask, with their base ``index`` kept."""
        positions = np.asarray(positions)
        chosen = torch.as_tensor(positions.nonzero()[0] if positions.dtype == bool else positions, dtype=torch.int64)
        places = chosen.tolist()
        return replace(
            self,
            index=self.rows[chosen],
            targets=None if self.targets is None else self.targets[chosen],
            domains=None if self.domains is None else self.domains[chosen],
            ids=[self.ids[i] for i in places],
            groups=None if self.groups is None else [self.groups[i] for i in places],
            texts=None if self.texts is None else [self.texts[i] for i in places],
        )

    def with_transform(self, transform: nn.Module | None) -> "ImageDataset":
        """Return the same samples with another transform."""
        return replace(self, transform=transform)

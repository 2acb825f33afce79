"""Preparing a store: every image decoded, cropped and resized once, instead of in every epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils.data import ConcatDataset, DataLoader, Dataset
from torchvision.transforms import v2
from tqdm import tqdm

from medbolt.core.data.base import ImageDataModule
from medbolt.core.data.crop import CropFieldOfView
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.source import fingerprints
from medbolt.core.data.splits import SPLITS
from medbolt.core.data.store import StorePlan
from medbolt.core.data.store_writer import StoreWriter
from medbolt.core.errors import UserError


def prepare(
    data: ImageDataModule, output: Path | str, size: int = 224, crop_circle: bool = False, workers: int = 0
) -> StorePlan:
    """Write all splits of a data module into a store, going on where an earlier run was stopped.

    Images are resized to squares as :class:`~medbolt.core.data.transforms.EvaluationTransform` does it (antialiased
    bilinear; masks by nearest neighbour), so that evaluation at that size sees the same pixels with the store as
    without. The store is the same for any number of workers. A store of other pictures is told by their references
    and, of plain files, by their sizes in bytes; a file replaced by one of the same size is taken for the old one.

    Args:
        data: The data module; its transforms are not used.
        output: Folder of the store.
        size: Height and width in pixels.
        crop_circle: First cut fundus photographs to the square around their field of view
            (:class:`~medbolt.core.data.crop.CropFieldOfView`).
        workers: Processes that decode; 0 decodes in this one.

    Returns:
        What the store holds.

    Raises:
        UserError: if an image cannot be read, a name occurs twice, the folder holds a store of other pictures or
            options, or the store cannot be written. What is finished stays for the next run.

    Example:
        >>> from medbolt.core.data.folder import FolderDataModule
        >>> prepare(FolderDataModule("fundus"), "stores/fundus", crop_circle=True)  # doctest: +SKIP
    """
    steps = [CropFieldOfView()] if crop_circle else []
    transform = v2.Compose([*steps, v2.Resize((size, size), antialias=True)])
    splits = [dataset.with_transform(transform) for split in SPLITS if len(dataset := data.load(split))]
    if not splits:
        raise UserError(f"{type(data).__name__} has no images to prepare; give it some.")
    pictures = _Pictures(splits)
    if isinstance(first := pictures[0], UserError):
        raise first
    layers = {layer: list(picture.shape) for layer, picture in first.items()}
    sources = [source for dataset in splits for source in fingerprints(dataset)]
    plan = StorePlan(_unique_ids(splits), layers, {"size": size, "crop_circle": crop_circle}, sources)
    with StoreWriter(Path(output), plan) as writer:
        rest = range(writer.start, len(pictures))
        loader = DataLoader(pictures, batch_size=None, sampler=rest, num_workers=workers if rest else 0)
        if (error := _write(writer, loader)) is not None:
            raise error
    return plan


def _write(writer: StoreWriter, loader: DataLoader[dict[str, Tensor] | UserError]) -> UserError | None:
    """Write the rows up to the first error and return that: raised in here it would keep the workers alive."""
    bar = tqdm(loader, "preparing", len(writer.plan.ids), initial=writer.start, unit="image", mininterval=0.5)
    for row in bar:
        if isinstance(row, UserError):
            return row
        writer.append(row)
    return None


class _Pictures(Dataset[dict[str, Tensor] | UserError]):
    """The image and layers of each sample, without the rest."""

    def __init__(self, splits: Sequence[ImageDataset]) -> None:
        self.samples: ConcatDataset[dict[str, Any]] = ConcatDataset(splits)
        self.layers = ["image", *splits[0].layers]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, position: int) -> dict[str, Tensor] | UserError:
        try:
            sample = self.samples[position]
        except UserError as error:
            return error
        return {layer: sample[layer] for layer in self.layers}


def _unique_ids(splits: Sequence[ImageDataset]) -> list[str]:
    ids = [name for dataset in splits for name in dataset.ids]
    seen: set[str] = set()
    for name in ids:
        if name in seen:
            raise UserError(f"two samples have the id '{name}', by which the store finds them; make ids unique.")
        seen.add(name)
    return ids

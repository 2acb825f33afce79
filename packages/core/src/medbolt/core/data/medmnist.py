"""The MedMNIST benchmark: small images of many modalities, one npz file a set."""

from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from medbolt.core.data.base import ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.download import download
from medbolt.core.data.images import ImageFiles
from medbolt.core.data.locate import locate
from medbolt.core.data.medmnist_sets import OFFICIAL_SETS
from medbolt.core.data.npz import array_shape, read_array
from medbolt.core.data.transforms import TrainingTransform
from medbolt.core.errors import UserError


class MedMNISTDataModule(ImageDataModule):
    """Read an npz file as MedMNIST has them: arrays ``{train,val,test}_images`` and ``{train,val,test}_labels``.

    Labels are (N, 1) classes or (N, C) findings. The official two-dimensional sets have their class names; other files
    of this form are read too, with classes called "0", "1", ... The images are read whole into memory at the first
    one asked for. There are no patient names: whether a patient is in two splits cannot be checked.

    The default training transform of an official set, and of ``mednist_small``, mirrors only where that shows nothing
    impossible and leaves the label right:

    - both ways where there is no upright: pathology, dermatoscopy, blood and kidney cells;
    - left to right where that turns a left eye or breast into a right one: fundus photographs, OCT, ultrasound;
    - not at all where sides matter: radiographs, CT slices of organs, whose classes are left and right kidneys.

    That of other files is :class:`~medbolt.core.TrainingTransform` with its own defaults.

    Args:
        name: Name of the set, such as ``"retinamnist"``.
        root: Folder of the file; see :func:`~medbolt.core.data.locate.locate`.
        size: Which file: 28 is ``<name>.npz``, the larger ones are ``<name>_<size>.npz``.
        download: Fetch the file into ``root`` when it is not there.
        url: Address of the folder to download from.
        batch_size: Samples a batch and a process.
        num_workers: Loading processes; 0 loads in the training process.
        image_size: Height and width of the default transforms; ``None`` keeps the size of the images.
        train_transform: Replaces the default training transform, mirroring included.
        eval_transform: Replaces the default evaluation transform.
        seed: Seed of order and augmentation.
        drop_last: Leave out the last training batch when it is not full; ``"auto"`` does so when there is a full one.
        store: Folder made by ``medbolt data prepare``.

    Raises:
        UserError: if the file is missing, damaged or not of this form, or a label is out of range.

    Source: Yang et al., doi 10.1038/s41597-022-01721-8; files at doi 10.5281/zenodo.10519652.

    Example:
        >>> MedMNISTDataModule("octmnist").class_names
        ['choroidal neovascularization', 'diabetic macular edema', 'drusen', 'normal']
    """

    def __init__(
        self,
        name: str,
        root: Path | str = "medmnist",
        size: Literal[28, 64, 128, 224] = 28,
        download: bool = False,
        url: str = "https://zenodo.org/records/10519652/files",
        batch_size: int = 128,
        num_workers: int = 0,
        image_size: int | None = None,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        seed: int = 0,
        drop_last: bool | Literal["auto"] = "auto",
        store: Path | str | None = None,
    ) -> None:
        if train_transform is None and name in OFFICIAL_SETS:
            train_transform = TrainingTransform(image_size, flips=OFFICIAL_SETS[name].flips)
        super().__init__(batch_size, num_workers, image_size, train_transform, eval_transform, seed, drop_last, store)
        self.dataset_name, self.root, self.size = name, Path(root), size
        self.download, self.url = download, url

    def prepare_data(self) -> None:
        """Download the file, if that is wanted and it is not there."""
        if self.download and not self._path.exists():
            official = OFFICIAL_SETS.get(self.dataset_name)
            checksum = official.md5.get(self.size) if official else None
            download(f"{self.url}/{self._path.name}", self._path, checksum)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by class index."""
        if self.dataset_name in OFFICIAL_SETS:
            return OFFICIAL_SETS[self.dataset_name].classes.split(", ")
        labels = self._labels("train")
        return [str(i) for i in range(labels.shape[1] if labels.ndim == 2 else int(labels.max()) + 1)]

    def load(self, split: Split) -> ImageDataset:
        """Return a split without transform."""
        targets, path = self._labels(split), self._path
        size = array_shape(path, f"{split}_images")[0]
        if size != len(targets):
            raise UserError(f"{path} has {size} {split}_images and {len(targets)} {split}_labels; get the file anew.")
        self._check_range(split, targets)
        images = ImageFiles(path.parent, [f"{path.name}/{split}_images/{row}" for row in range(size)])
        return ImageDataset(images, targets, ids=[f"{path.stem}-{split}-{row}" for row in range(size)])

    @cached_property
    def _path(self) -> Path:
        file = f"{self.dataset_name}.npz" if self.size == 28 else f"{self.dataset_name}_{self.size}.npz"
        try:
            return locate(self.root / file)
        except UserError:
            if self.download:
                return self.root / file
            raise

    def _labels(self, split: Split) -> Tensor:
        self.prepare_data()  # the classes may be asked for before the trainer calls it
        labels = read_array(self._path, f"{split}_labels")
        if labels.dtype.kind not in "iub":
            raise UserError(f"array '{split}_labels' of {self._path} holds {labels.dtype}; labels are whole numbers.")
        if labels.ndim == 2 and labels.shape[1] > 1:
            return torch.from_numpy(labels.astype(np.float32))
        return torch.from_numpy(labels.reshape(len(labels)).astype(np.int64))

    def _check_range(self, split: Split, targets: Tensor) -> None:
        classes = len(self.class_names)
        highest = classes - 1 if targets.ndim == 1 else 1
        wrong = ((targets < 0) | (targets > highest)).reshape(len(targets), -1).any(1)
        if wrong.any():
            row = int(wrong.nonzero()[0])
            raise UserError(
                f"row {row} of {split}_labels in {self._path} is {targets[row].tolist()}, out of 0 to {highest}; "
                "correct the label or the name of the set."
            )
        if targets.ndim == 2 and targets.shape[1] != classes:
            raise UserError(f"{split}_labels in {self._path} has {targets.shape[1]} columns for {classes} classes.")

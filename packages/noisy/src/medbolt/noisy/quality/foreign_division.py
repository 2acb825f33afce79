"""Folds of a data module that is not medbolt's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler, SequentialSampler, Subset
from torchvision.transforms.v2.functional import pil_to_tensor

from medbolt.core.data.indexed import Indexed
from medbolt.core.data.rebuilt import rebuilt
from medbolt.core.data.splits import membership, stratified_parts
from medbolt.core.errors import UserError
from medbolt.core.predictions.table import Predictions
from medbolt.noisy.quality.division import Division, Examined


class ForeignFold(Indexed):
    """Any LightningDataModule without some of its training samples, which it tests on.

    Args:
        data: Its ``train_dataloader`` returns one ``DataLoader`` over a map-style data set, in order or shuffled.
        held_out: (N,) bool: training samples to leave out of training and to test on.

    Raises:
        UserError: if the loader is another.
    """

    def __init__(self, data: LightningDataModule, held_out: Tensor) -> None:
        super().__init__(data)
        self.held_out = held_out
        self.test_dataloader = self._held_out_loader

    def setup(self, stage: str) -> None:
        """Set up the wrapped data module for training: also to test, its training samples are needed."""
        super().setup("fit")

    def _train_loader(self) -> DataLoader[Any]:
        loader = super()._train_loader()
        part = Subset(loader.dataset, (~self.held_out).nonzero()[:, 0].tolist())
        kind = type(loader.sampler)
        if loader.batch_size is None or kind not in (RandomSampler, SequentialSampler) or _repeats(loader.sampler):
            raise UserError(
                f"the training samples of {type(self.data).__name__} cannot be divided into folds, as its loader draws "
                "them by a sampler of its own; return a DataLoader with shuffle=True."
            )
        shuffled = RandomSampler(part, generator=loader.generator)
        return rebuilt(loader, part, sampler=shuffled if kind is RandomSampler else SequentialSampler(part))

    def _held_out_loader(self) -> DataLoader[Any]:
        loader = super()._train_loader()
        part = Subset(loader.dataset, self.held_out.nonzero()[:, 0].tolist())
        return rebuilt(loader, part, sampler=SequentialSampler(part), drop_last=False)


class ForeignDivision(Division):
    """Folds of any LightningDataModule; the module's ``test_step`` predicts, and batches tell the labels.

    Folds are stratified where the training set has ``targets`` (as torchvision's do), random otherwise. The data set's
    own augmentation stays, as nobody else knows it. Samples are named by their position.

    Args:
        data: The data module, with or without :class:`~medbolt.core.Indexed` around it.
        folds: Number of folds.
        seed: Another seed divides otherwise.
        trainer: What the data module finds as its ``trainer`` before there is a run.
    """

    def __init__(self, data: LightningDataModule, folds: int, seed: int, trainer: Trainer) -> None:
        super().__init__(data if isinstance(data, Indexed) else Indexed(data), folds, seed)
        self.data.data.trainer = trainer
        self._parts: Tensor | None = None

    def check(self, module: LightningModule) -> None:
        """Prepare the data and find out whether they can be divided, and predicted by the module."""
        if not is_overridden("test_step", module):
            raise UserError(
                f"{type(module).__name__} has no test_step, by which the samples held out of training are predicted; "
                "add one, which may do what its validation_step does."
            )
        self.data.prepare_data()
        self.data.data.setup("fit")
        if self.data.train_size < self.folds:
            raise UserError(
                f"the {self.data.train_size} samples of {self._name} cannot be divided into {self.folds} folds; use "
                "fewer folds."
            )
        self.fold(0).train_dataloader()

    def fold(self, number: int) -> ForeignFold:
        """Return data for training without a fold, and for predicting it."""
        return ForeignFold(self.data.data, self._part_of_each() == number)

    def predict(self, trainer: Trainer, module: LightningModule, fold: LightningDataModule, ckpt: str | None) -> None:
        """Have the module predict the samples held out, once each and in order."""
        trainer.test(module, datamodule=fold, ckpt_path=ckpt, verbose=False)

    def rows(self, number: int) -> Tensor:
        """Return the samples of a fold, (n,) int64, in the order in which they are predicted."""
        return (self._part_of_each() == number).nonzero()[:, 0]

    def examined(self, predicted: Sequence[Predictions]) -> Examined:
        """Return the training samples with the predictions of all folds."""
        size, samples = self.data.train_size, self.data.train_set
        given = torch.zeros(size, dtype=torch.int64)
        for number, table in enumerate(predicted):
            if table.multilabel:
                raise UserError(f"{self._name} has not one class a sample, which finding wrong labels needs.")
            given[self.rows(number)] = torch.from_numpy(table.target)
        return Examined(
            data=self._name,
            ids=[str(row) for row in range(size)],
            class_names=list(predicted[0].class_names),
            groups=None,
            given=given,
            probabilities=self.by_row(predicted, size),
            clean=None,
            picture=lambda row: picture_of(samples[row]),
        )

    @property
    def _name(self) -> str:
        return type(self.data.data).__name__

    def _part_of_each(self) -> Tensor:
        if self._parts is None:
            self.data.data.setup("fit")
            size = self.data.train_size
            targets = getattr(self.data.train_set, "targets", None)
            classes = membership(None, size)
            if (
                targets is not None
                and (labels := torch.as_tensor(targets)).ndim == 1
                and not labels.is_floating_point()
            ):
                classes = membership(labels, size)
            names = [str(row) for row in range(size)]
            self._parts = torch.from_numpy(stratified_parts(classes, names, [1 / self.folds] * self.folds, self.seed))
        return self._parts


def picture_of(sample: Any) -> Tensor | None:
    """Return the picture in a sample, (3, H, W) uint8, floats stretched to its darkest and brightest; or ``None``.

    Example:
        >>> picture_of((torch.rand(1, 4, 4), 0)).shape
        torch.Size([3, 4, 4])
    """
    if isinstance(sample, Mapping):
        image = sample.get("image")
    else:
        image = sample[0] if isinstance(sample, Sequence) and len(sample) else None
    if hasattr(image, "getbands"):
        image = pil_to_tensor(image)
    if isinstance(image, np.ndarray):
        image = torch.from_numpy(image)
    if not isinstance(image, Tensor) or image.ndim not in (2, 3):
        return None
    image = image[None] if image.ndim == 2 else image
    if image.dtype != torch.uint8:
        low, high = image.min(), image.max()
        image = ((image - low) / (high - low).clamp(min=1e-9) * 255).to(torch.uint8)
    if len(image) < 3:
        image = image[:1].expand(3, -1, -1)
    return image[:3]


def _repeats(sampler: Any) -> bool:
    return isinstance(sampler, RandomSampler) and (sampler.replacement or sampler._num_samples is not None)

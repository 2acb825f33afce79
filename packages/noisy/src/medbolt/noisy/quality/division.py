"""What cross-validation asks of data: folds to train without and to predict, and what a report says of the samples."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor

from medbolt.core.data.base import ImageDataModule
from medbolt.core.errors import UserError
from medbolt.core.predictions.table import Predictions
from medbolt.noisy.quality.folds import CrossValidationFold
from medbolt.noisy.selection.labels import training_labels


@dataclass(frozen=True, eq=False)
class Examined:
    """The training samples, and what models that had not seen them say.

    Args:
        data: Name of the data module's class.
        ids: N names.
        class_names: K names.
        groups: Number of groups, of patients for instance, where there are any.
        given: (N,) int64 labels.
        probabilities: (N, K) float64 out of fold.
        clean: (N,) int64 labels before noise, where somebody knows them.
        picture: Returns the picture of a sample, (3, H, W) uint8, if it has one.
    """

    data: str
    ids: Sequence[str]
    class_names: Sequence[str]
    groups: int | None
    given: Tensor
    probabilities: Tensor
    clean: Tensor | None
    picture: Callable[[int], Tensor | None]


class Division(ABC):
    """The training samples of a data module, divided into folds.

    Args:
        data: The data module.
        folds: Number of folds.
        seed: Another seed divides otherwise.
    """

    def __init__(self, data: Any, folds: int, seed: int) -> None:
        self.data, self.folds, self.seed = data, folds, seed

    @property
    def fingerprint(self) -> str:
        """Digest of the training data, to which predictions belong."""
        return self.data.fingerprint

    @abstractmethod
    def check(self, module: LightningModule) -> None:
        """Prepare the data and find out whether they can be divided, and predicted by the module.

        Raises:
            UserError: if they cannot.
        """

    @abstractmethod
    def fold(self, number: int) -> LightningDataModule:
        """Return data for training without a fold, and for predicting it."""

    @abstractmethod
    def predict(self, trainer: Trainer, module: LightningModule, fold: LightningDataModule, ckpt: str | None) -> None:
        """Have the module predict the samples held out, once each and in order."""

    @abstractmethod
    def rows(self, number: int) -> Tensor:
        """Return the samples of a fold, (n,) int64, in the order in which they are predicted."""

    @abstractmethod
    def examined(self, predicted: Sequence[Predictions]) -> Examined:
        """Return the training samples with the predictions of all folds."""

    def by_row(self, predicted: Sequence[Predictions], size: int) -> Tensor:
        """Return (size, K) float64 out-of-fold probabilities."""
        probabilities = torch.zeros(size, len(predicted[0].class_names), dtype=torch.float64)
        for number, table in enumerate(predicted):
            probabilities[self.rows(number)] = torch.from_numpy(table.probability)
        return probabilities


class OwnDivision(Division):
    """Folds of a data module of medbolt: stratified, groups whole, predicted without augmentation."""

    data: ImageDataModule

    def check(self, module: LightningModule) -> None:
        """Prepare the data and find out whether they can be divided, and predicted by the module."""
        self.data.prepare_data()
        if self.data.train_targets.ndim != 1:
            raise UserError(f"{type(self.data).__name__} has not one class a sample, which finding wrong labels needs.")
        for number in range(self.folds):
            self.rows(number)

    def fold(self, number: int) -> CrossValidationFold:
        """Return data for training without a fold, and for predicting it."""
        return CrossValidationFold(self.data, self.folds, number, self.seed)

    def predict(self, trainer: Trainer, module: LightningModule, fold: LightningDataModule, ckpt: str | None) -> None:
        """Have the module predict the samples held out, once each and in order."""
        trainer.predict(module, datamodule=fold, return_predictions=False, ckpt_path=ckpt)

    def rows(self, number: int) -> Tensor:
        """Return the samples of a fold, (n,) int64, in the order in which they are predicted."""
        return self.fold(number).dataset("test").rows.unique()

    def examined(self, predicted: Sequence[Predictions]) -> Examined:
        """Return the training samples with the predictions of all folds."""
        train, labels = self.data.dataset("train"), training_labels(self.data)
        return Examined(
            data=type(self.data).__name__,
            ids=list(train.ids),
            class_names=list(self.data.class_names),
            groups=None if train.groups is None else len(set(train.groups)),
            given=self.data.train_targets,
            probabilities=self.by_row(predicted, self.data.train_size)[train.rows],
            clean=None if labels is None or labels.clean is None else labels.clean[train.rows],
            picture=lambda place: train.images[int(train.rows[place])],
        )

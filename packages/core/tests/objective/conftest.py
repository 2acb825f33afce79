"""Small foreign modules and data: nothing of them knows medbolt."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Classifier(LightningModule):
    """A module as users write them: tuple batches, a criterion attribute."""

    def __init__(self, criterion: Any = None) -> None:
        super().__init__()
        self.model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
        self.criterion = nn.CrossEntropyLoss() if criterion is None else criterion
        self.losses: list[float] = []
        self.val_losses: list[float] = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.criterion(self.model(x), y)
        self.losses.append(float(loss))
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.val_losses.append(float(self.criterion(self.model(x), y)))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class FunctionalClassifier(Classifier):
    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.model(x), y)
        self.losses.append(float(loss))
        return loss


class Data(LightningDataModule):
    def __init__(self, size: int = 12) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.x = torch.randn(size, 4, generator=generator)
        self.y = torch.randint(0, 3, (size,), generator=generator)

    def train_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=4, shuffle=True)

    def val_dataloader(self):
        return DataLoader(TensorDataset(self.x, self.y), batch_size=4)


@pytest.fixture
def classifier() -> type[Classifier]:
    return Classifier


@pytest.fixture
def functional_classifier() -> type[FunctionalClassifier]:
    return FunctionalClassifier


@pytest.fixture
def data() -> type[Data]:
    return Data


@pytest.fixture
def trainer(tmp_path) -> Callable[..., Trainer]:
    def make(*callbacks: Any, epochs: int = 1, **options: Any) -> Trainer:
        defaults = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        return Trainer(
            max_epochs=epochs,
            callbacks=list(callbacks),
            accelerator="cpu",
            enable_model_summary=False,
            num_sanity_val_steps=0,
            default_root_dir=tmp_path,
            **(defaults | options),
        )

    return make


@pytest.fixture
def fitted(trainer) -> Callable[..., Any]:
    """Fit a freshly seeded module and return it."""

    def fit(make: Callable[[], LightningModule], data: Any, *callbacks: Any, **options: Any) -> Any:
        seed_everything(1, verbose=False)
        module = make()
        trainer(*callbacks, **options).fit(module, datamodule=data)
        return module

    return fit

"""A small classifier with batch norm and dropout below its head, and long-tailed data that overlap."""

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import ToyClassifier

from medbolt.core import ClassificationTask, EvaluationTransform, ImageDataModule, ImageDataset


class Overlapping(ImageDataModule):
    """Noisy images whose brightness is one of three classes, with 200, 20 and 4 training samples."""

    def __init__(self) -> None:
        super().__init__(batch_size=32, image_size=None, train_transform=EvaluationTransform(None), seed=7)

    def load(self, split):
        sizes = torch.tensor([200, 20, 4] if split == "train" else [60, 60, 60])
        target = torch.repeat_interleave(torch.arange(3), sizes)
        generator = torch.Generator().manual_seed(len(split))
        noise = torch.randn(len(target), 1, 2, 2, generator=generator) * 70
        images = (80 + 45 * target[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        return ImageDataset(images, target, [f"{split}{i}" for i in range(len(target))])

    @property
    def class_names(self):
        return ["common", "less", "rare"]


class Decaying(ToyClassifier):
    """With the optimizer of tasks, which decays weights, over all parameters."""

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), 0.05, weight_decay=0.1)


class Foreign(LightningModule):
    """Written without medbolt: tuples for batches, other names, the whole module in training mode each epoch."""

    def __init__(self, loss=None) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.fc = nn.Linear(8, 3)
        self.loss_fn = loss or nn.CrossEntropyLoss()
        self.losses: list[float] = []

    def forward(self, x):
        return self.fc(self.norm(self.conv(x)).relu())

    def on_train_epoch_start(self):
        self.train()

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss_fn(self(x), y)
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def overlapping() -> type[Overlapping]:
    return Overlapping


@pytest.fixture
def decaying() -> type[Decaying]:
    return Decaying


@pytest.fixture
def foreign() -> type[Foreign]:
    return Foreign


@pytest.fixture
def foreign_loader() -> DataLoader:
    generator = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(torch.randn(12, 4, generator=generator), torch.arange(12) % 3), batch_size=6)


@pytest.fixture
def overlapping_task() -> Callable[..., ClassificationTask]:
    def make(**options):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3))
        return ClassificationTask(network, 3, optimizer=lambda p: torch.optim.Adam(p, 0.01), **options)

    return make

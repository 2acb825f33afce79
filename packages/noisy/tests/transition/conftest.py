"""Three blobs of points, of which a known matrix has flipped the labels, and a small network that can memorise them."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import trainer

FLIPS = torch.tensor([[0.6, 0.4, 0.0], [0.0, 0.6, 0.4], [0.4, 0.0, 0.6]])


def points(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return points, their classes, and labels of which 40 % are those of the next class."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.arange(size) % 3
    centres = 2.5 * torch.tensor([[1.0, 0.0], [-0.5, 0.87], [-0.5, -0.87]])
    x = centres[clean] + torch.randn(size, 2, generator=generator)
    noisy = torch.multinomial(FLIPS[clean], 1, generator=generator).squeeze(1)
    return x, clean, noisy


class Points(LightningDataModule):
    """What a data module must tell: batches with an index, their number, and the samples once more in order."""

    num_classes, train_size, fingerprint = 3, 600, "points"

    def __init__(self) -> None:
        super().__init__()
        x, _, noisy = points(self.train_size, seed=1)
        self.samples = [{"image": x[i], "target": noisy[i], "index": i} for i in range(self.train_size)]

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(
            self.samples,  # pyright: ignore[reportArgumentType]
            batch_size=100,
            shuffle=True,
            generator=torch.Generator().manual_seed(self.trainer.current_epoch if self.trainer else 0),
        )

    def train_eval_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.samples, batch_size=300)  # pyright: ignore[reportArgumentType]


class PointsClassifier(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(2, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 3))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.criterion(self.model(batch["image"]), batch["target"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), 0.005, weight_decay=1e-4)


@pytest.fixture(scope="session")
def flips() -> Tensor:
    """The matrix by which labels became wrong."""
    return FLIPS


@pytest.fixture(scope="session")
def accuracy() -> Callable[..., float]:
    """Return a function that trains with callbacks and tells the last epoch's accuracy on clean test labels."""

    def train(*callbacks: Any, epochs: int = 60) -> float:
        module = PointsClassifier()
        trainer(*callbacks, epochs=epochs).fit(module, datamodule=Points())
        x, clean, _ = points(1000, seed=2)
        with torch.no_grad():
            return float((module.model(x).argmax(1) == clean).float().mean())

    return train


@pytest.fixture(scope="session")
def cross_entropy_accuracy(accuracy: Callable[..., float]) -> float:
    """Accuracy that cross entropy reaches."""
    return accuracy()

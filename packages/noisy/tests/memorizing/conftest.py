"""Modules and data that know nothing of medbolt but an index, and blobs of which 40 % of the labels are wrong."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from medbolt.core import RandomState

CLASSES, DIMENSIONS = 4, 16


class Batches:
    """Batches of dicts in an order of its own each epoch; what is left over is a smaller batch."""

    def __init__(self, columns: dict[str, Tensor], size: int, shuffle: bool) -> None:
        self.columns, self.size, self.shuffle = columns, size, shuffle
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return -(-len(self.columns["target"]) // self.size)

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        size = len(self.columns["target"])
        order = torch.randperm(size, generator=self.generator) if self.shuffle else torch.arange(size)
        for index in order.split(self.size):
            yield {name: column[index] for name, column in self.columns.items()} | {"index": index}


class Data(LightningDataModule):
    def __init__(self, size: int, num_classes: int | None, shuffle: bool = True, **columns: Tensor) -> None:
        super().__init__()
        self.columns, self.size, self.shuffle = columns, size, shuffle
        self.train_size, self.fingerprint = len(columns["target"]), ""
        if num_classes is not None:
            self.num_classes = num_classes

    def train_dataloader(self) -> Batches:
        return Batches(self.columns, self.size, self.shuffle)


class Module(LightningModule):
    """Remembers the logits and targets of each batch as its criterion got them."""

    def __init__(self, network: nn.Module, criterion: Any = None, lr: float = 0.01, adam: bool = False) -> None:
        super().__init__()
        self.model, self.lr, self.adam = network, lr, adam
        self.criterion = criterion or nn.CrossEntropyLoss()
        self.seen: list[tuple[Tensor, Tensor]] = []
        self.losses: list[Tensor] = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        logits = self.model(batch["image"])
        self.seen.append((logits.detach().clone(), batch["index"]))
        loss = self.criterion(logits, batch["target"])
        self.losses.append(loss.detach())
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return (torch.optim.Adam if self.adam else torch.optim.SGD)(self.parameters(), self.lr)


class FunctionalModule(Module):
    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        loss = cross_entropy(self.model(batch["image"]), batch["target"])
        self.losses.append(loss.detach())
        return loss


@pytest.fixture(scope="session")
def toy() -> type[Data]:
    return Data


@pytest.fixture(scope="session")
def module() -> type[Module]:
    return Module


@pytest.fixture(scope="session")
def functional_module() -> type[FunctionalModule]:
    return FunctionalModule


@pytest.fixture(scope="session")
def random_data() -> Callable[..., Data]:
    """Return a function that makes ten random samples of three classes, in batches of four."""

    def make(size: int = 10, batch: int = 4, num_classes: int | None = 3, **columns: Tensor) -> Data:
        generator = torch.Generator().manual_seed(1)
        x, y = torch.randn(size, 5, generator=generator), torch.arange(size) % 3
        return Data(batch, num_classes, **({"image": x, "target": y} | columns))

    return make


@pytest.fixture(scope="session")
def linear() -> Callable[..., nn.Module]:
    """Return a function that makes a small network, always the same."""

    def make(classes: int = 3, inputs: int = 5) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(inputs, 8), nn.Tanh(), nn.Linear(8, classes))

    return make


@pytest.fixture(scope="session")
def fit() -> Callable[..., Trainer]:
    """Return a function that fits a module quietly."""

    def run(
        module: LightningModule, data: LightningDataModule, *callbacks: Any, epochs: int = 1, **options: Any
    ) -> Any:
        quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
        trainer = Trainer(
            accelerator="cpu", max_epochs=epochs, callbacks=[RandomState(3), *callbacks], **(quiet | options)
        )
        trainer.fit(module, datamodule=data)
        return trainer

    return run


def blobs(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return points about four centres, which centre each belongs to, and labels 40 % of which are wrong."""
    centres = torch.randn(CLASSES, DIMENSIONS, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    clean = torch.arange(size) % CLASSES
    x = centres[clean] + torch.randn(size, DIMENSIONS, generator=generator)
    wrong = (clean + torch.randint(1, CLASSES, (size,), generator=generator)) % CLASSES
    return x, clean, torch.where(torch.rand(size, generator=generator) < 0.4, wrong, clean)


class Jitter(nn.Module):
    """A stronger view of points."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.3 * torch.randn_like(x)


@pytest.fixture(scope="session")
def jitter() -> nn.Module:
    return Jitter()


@pytest.fixture(scope="session")
def noisy_blobs() -> Callable[[], tuple[Data, Tensor]]:
    """Return a function that makes the noisy training data, and the clean labels of them."""

    def make() -> tuple[Data, Tensor]:
        x, clean, noisy = blobs(512, seed=1)
        return Data(64, CLASSES, image=x, target=noisy), clean

    return make


@pytest.fixture(scope="session")
def accuracy(fit: Callable[..., Any], noisy_blobs: Callable[..., Any]) -> Callable[..., float]:
    """Return a function that trains with callbacks and tells the last epoch's accuracy on clean test labels."""

    def train(*callbacks: Any, epochs: int = 50) -> float:
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(DIMENSIONS, 128), nn.ReLU(), nn.Linear(128, CLASSES))
        fit(Module(network, adam=True), noisy_blobs()[0], *callbacks, epochs=epochs)
        x, clean, _ = blobs(1000, seed=2)
        with torch.no_grad():
            return float((network(x).argmax(1) == clean).float().mean())

    return train


@pytest.fixture(scope="session")
def cross_entropy_accuracy(accuracy: Callable[..., float]) -> float:
    """Accuracy that cross entropy reaches."""
    return accuracy()

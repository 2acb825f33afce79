"""Steps without a trainer, and pairs of moons of which 40 % of the training labels are wrong."""

from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from toys import trainer

from medbolt.core.objective.step import Capture, TrainingStep


class Fixed(nn.Module):
    """A network that predicts the same logits whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits.clone())

    def forward(self, x: Tensor) -> Tensor:
        return self.logits


@pytest.fixture
def fixed() -> Callable[[Tensor], nn.Module]:
    return Fixed


@pytest.fixture
def step_of() -> Callable[..., TrainingStep]:
    """Return a function that makes the step of a batch over cross entropy, outside of any training."""

    def make(logits: Tensor, target: Tensor, epoch: int = 20, index: Tensor | None = None) -> TrainingStep:
        module: Any = SimpleNamespace(current_epoch=epoch, trainer=SimpleNamespace(strategy=None))
        return TrainingStep(
            logits=logits,
            target=target,
            batch=None,
            module=module,
            _inward=lambda step: cross_entropy(step.logits, step.target, reduction="none"),
            _capture=Capture("model", inputs=(torch.zeros(len(logits), 8),)),
            _index=index,
        )

    return make


class Batches:
    """Batches of dicts, shuffled anew each epoch."""

    def __init__(self, x: Tensor, y: Tensor, size: int) -> None:
        self.x, self.y, self.size = x, y, size
        self.generator = torch.Generator().manual_seed(0)

    def __len__(self) -> int:
        return len(self.x) // self.size

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        order = torch.randperm(len(self.x), generator=self.generator)
        for index in order[: len(self) * self.size].split(self.size):
            yield {"image": self.x[index], "target": self.y[index], "index": index}


class MoonsClassifier(LightningModule):
    def __init__(self, width: int = 256, lr: float = 0.01) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lr = lr
        self.model = nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.model.append(nn.Linear(width, 4))
        self.criterion = nn.CrossEntropyLoss()

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return self.criterion(self.model(batch["image"]), batch["target"])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), self.lr)


def moons(size: int, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return points of two pairs of moons, which moon each is of, and labels 40 % of which are wrong."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.arange(size) % 4
    moon, pair = clean % 2, clean // 2
    angle = torch.pi * torch.rand(size, generator=generator)
    x = torch.stack([angle.cos() + moon, (1 - 2 * moon) * angle.sin() + 0.5 * moon + 2.5 * pair], dim=1)
    x = torch.cat([x, torch.zeros(size, 6)], dim=1) + 0.1 * torch.randn(size, 8, generator=generator)
    wrong = (clean + torch.randint(1, 4, (size,), generator=generator)) % 4
    return x, clean, torch.where(torch.rand(size, generator=generator) < 0.4, wrong, clean)


@pytest.fixture(scope="session")
def fit_moons() -> Callable[..., tuple[LightningModule, Trainer]]:
    """Return a function that trains a module on the noisy moons."""

    def fit(*callbacks: Any, epochs: int = 40, module: LightningModule | None = None, batch: int = 64) -> Any:
        module = module or MoonsClassifier()
        x, _, noisy = moons(512, seed=1)
        run = trainer(*callbacks, epochs=epochs)
        run.fit(module, Batches(x, noisy, batch))
        return module, run

    return fit


@pytest.fixture(scope="session")
def accuracy(fit_moons: Callable[..., Any]) -> Callable[..., float]:
    """Return a function that trains with callbacks and tells the last epoch's accuracy on clean test labels."""

    def train(*callbacks: Any) -> float:
        module, _ = fit_moons(*callbacks)
        x, clean, _ = moons(1000, seed=2)
        with torch.no_grad():
            return float((module.model(x).argmax(1) == clean).float().mean())

    return train


@pytest.fixture(scope="session")
def cross_entropy_accuracy(accuracy: Callable[..., float]) -> float:
    """Accuracy that cross entropy reaches."""
    return accuracy()

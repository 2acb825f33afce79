"""What interception costs: a no-op ObjectiveCallback against the same training step without it."""

import statistics
import time

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from medbolt.core import ObjectiveCallback, TimmClassifier

STEPS = 300


class Module(LightningModule):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model, self.criterion = model, nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        return self.criterion(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Clock(Callback):
    """Notes when each batch begins."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.times.append(time.perf_counter())

    def seconds(self) -> float:
        return statistics.median(b - a for a, b in zip(self.times, self.times[1:], strict=False))


def step_seconds(model: nn.Module, images: torch.Tensor, steps: int, *callbacks: Callback) -> float:
    """Return the median time of a training step in a Trainer."""
    clock = Clock()
    images = images.expand(steps, *images.shape).flatten(0, 1)
    loader = DataLoader(TensorDataset(images, torch.zeros(len(images)).long()), len(images) // steps)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    Trainer(max_epochs=1, accelerator="cpu", callbacks=[clock, *callbacks], **quiet).fit(Module(model), loader)
    return clock.seconds()


def test_a_no_op_objective(figures):
    """The callback's own time, which a tiny network shows, is a share of a step of resnet10t at 28 px, batch 128."""
    tiny, few = nn.Sequential(nn.Flatten(), nn.Linear(12, 2)), torch.zeros(4, 3, 2, 2)
    rounds = [step_seconds(tiny, few, STEPS, ObjectiveCallback()) - step_seconds(tiny, few, STEPS) for _ in range(5)]
    functional = [
        step_seconds(tiny, few, STEPS, ObjectiveCallback(criterion="functional")) - step_seconds(tiny, few, STEPS)
        for _ in range(5)
    ]
    step = step_seconds(TimmClassifier("resnet10t", 5), torch.randn(128, 3, 28, 28), 8)
    for name, added in {"objective": rounds, "objective, functional": functional}.items():
        cost = statistics.median(added)
        figures.add(f"no-op {name}: share of a step", f"{cost * 1e6:.0f} us of {step:.3g} s", cost / step, "<= 0.02")

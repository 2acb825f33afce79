"""What a training step costs with a method for noisy labels, against the same step with cross entropy alone."""

import statistics
import time

import pytest
import torch
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from medbolt.core import Indexed, TimmClassifier
from medbolt.noisy import (
    CDR,
    DISC,
    CoDis,
    ConfidentWeighting,
    CoTeaching,
    CoTeachingPlus,
    EarlyLearningRegularization,
    JoCoR,
    LabelQuality,
    MixUp,
    SelfEnsembleLabelCorrection,
    SparseOverParameterization,
    VolMinNet,
)

CLASSES, BATCH, BATCHES = 5, 128, 5


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.criterion = TimmClassifier("resnet10t", CLASSES), nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        return self.criterion(self.model(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


class Data(LightningDataModule):
    num_classes = CLASSES

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        images = torch.randn(BATCH * BATCHES, 3, 28, 28, generator=generator)
        return DataLoader(TensorDataset(images, torch.arange(len(images)) % CLASSES), BATCH)


class AllClean(DISC):
    """After the warm-up takes every sample for clean, which costs most."""

    def begin_epoch(self, trainer, pl_module):
        super().begin_epoch(trainer, pl_module)
        self.memory["clean"].fill_(trainer.current_epoch > 0)
        self.memory["hard"].fill_(False)
        self.memory["purified"].fill_(False)


class Clock(Callback):
    """Notes the time of each batch of the second epoch, the optimizer's step included."""

    def __init__(self):
        self.times = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch:
            self.times.append(time.perf_counter() - self.start)


def step_seconds(*callbacks: Callback) -> float:
    """Return the median time of a training step, the callbacks' own hooks in it."""
    clock = Clock()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    # the clock is first at the start of a batch and last at its end
    order = [clock, *callbacks]
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=order, enable_model_summary=False, **quiet)
    trainer.fit(Module(), datamodule=Indexed(Data()))
    return statistics.median(clock.times)


METHODS = {
    "ELR": (lambda: EarlyLearningRegularization(), "<= 1.05"),
    "SELC": (lambda: SelfEnsembleLabelCorrection(start_epoch=0), "<= 1.05"),
    "SOP": (lambda: SparseOverParameterization(), "-"),
    "MixUp": (lambda: MixUp(), "-"),
    "VolMinNet": (lambda: VolMinNet(), "-"),
    "CDR": (lambda: CDR(0.4, gradual_epochs=0), "-"),
    "LabelQuality": (lambda: LabelQuality(), "-"),
    "ConfidentWeighting": (lambda: ConfidentWeighting(start_epoch=1), "-"),
    "Co-teaching": (lambda: CoTeaching(0.4, gradual_epochs=0), "<= 2.1"),
    "Co-teaching+": (lambda: CoTeachingPlus(0.4, warmup_epochs=0, gradual_epochs=0), "<= 2.1"),
    "JoCoR": (lambda: JoCoR(0.4, gradual_epochs=0), "<= 2.1"),
    "CoDis": (lambda: CoDis(0.4, gradual_epochs=0), "<= 2.1"),
    "DISC": (lambda: AllClean(start_epoch=1, strong=nn.Identity()), "<= 2.2"),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method(figures, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, goal = METHODS[name]
    ratios = [step_seconds(make()) / step_seconds() for _ in range(3)]  # in turns, so that both see the same load
    figures.add(f"{name} / cross entropy, step", "", statistics.median(ratios), goal)

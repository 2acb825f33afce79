"""What a training step costs with a method for noisy labels.

Against the same step with cross entropy alone, and against a step of the passes through a network that it has to make.
"""

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
    SampleSelectionAndRelabelling,
    SelfEnsembleLabelCorrection,
    SparseOverParameterization,
    VolMinNet,
)

CLASSES, BATCH, BATCHES = 5, 128, 5


class Module(LightningModule):
    def __init__(self, passes=1, networks=1):
        super().__init__()
        torch.manual_seed(0)
        self.model, self.criterion = TimmClassifier("resnet10t", CLASSES), nn.CrossEntropyLoss()
        self.others = nn.ModuleList(TimmClassifier("resnet10t", CLASSES) for _ in range(networks - 1))
        self.passes = passes

    def training_step(self, batch, batch_idx):
        networks = [self.model, *self.others]
        losses = [self.criterion(networks[i % len(networks)](batch[0]), batch[1]) for i in range(self.passes)]
        return torch.stack(losses).sum()

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


class AllSelected(SampleSelectionAndRelabelling):
    """Without the pass between epochs, which is no part of a step."""

    def begin_epoch(self, trainer, pl_module):
        pass


class Clock(Callback):
    """Notes the time of each batch of the second epoch, the optimizer's step included."""

    def __init__(self):
        self.times = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if trainer.current_epoch:
            self.times.append(time.perf_counter() - self.start)


def step_seconds(*callbacks: Callback, passes: int = 1, networks: int = 1) -> float:
    """Return the median time of a training step, the callbacks' own hooks in it."""
    clock = Clock()
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    # the clock is first at the start of a batch and last at its end
    order = [clock, *callbacks]
    trainer = Trainer(max_epochs=2, accelerator="cpu", callbacks=order, enable_model_summary=False, **quiet)
    trainer.fit(Module(passes, networks), datamodule=Indexed(Data()))
    return statistics.median(clock.times)


NOISE = nn.Identity()  # a second view that costs nothing
METHODS = {  # what a step may cost in steps of cross entropy; training passes through a network, and networks
    "ELR": (lambda: EarlyLearningRegularization(), "<= 1.05", 1, 1),
    "SELC": (lambda: SelfEnsembleLabelCorrection(start_epoch=0), "<= 1.05", 1, 1),
    "SOP": (lambda: SparseOverParameterization(), "<= 1.1", 1, 1),
    "SOP+": (lambda: SparseOverParameterization(consistency=0.9, balance=0.1, strong=NOISE), "-", 2, 1),
    "MixUp": (lambda: MixUp(), "-", 1, 1),
    "SSR": (lambda: AllSelected(), "<= 1.1", 1, 1),
    "SSR+": (lambda: AllSelected(consistency=1.0, strong=NOISE), "-", 3, 1),
    "VolMinNet": (lambda: VolMinNet(), "<= 1.1", 1, 1),
    "CDR": (lambda: CDR(0.4, gradual_epochs=0), "-", 1, 1),
    "CDR, approximate": (lambda: CDR(0.4, gradual_epochs=0, approximate=True), "<= 1.1", 1, 1),
    "LabelQuality": (lambda: LabelQuality(), "-", 1, 1),
    "ConfidentWeighting": (lambda: ConfidentWeighting(start_epoch=1), "-", 1, 1),
    "Co-teaching": (lambda: CoTeaching(0.4, gradual_epochs=0), "<= 2.1", 2, 2),
    "Co-teaching+": (lambda: CoTeachingPlus(0.4, warmup_epochs=0, gradual_epochs=0), "<= 2.1", 2, 2),
    "JoCoR": (lambda: JoCoR(0.4, gradual_epochs=0), "<= 2.1", 2, 2),
    "CoDis": (lambda: CoDis(0.4, gradual_epochs=0), "<= 2.1", 2, 2),
    "DISC": (lambda: AllClean(start_epoch=1, strong=NOISE), "-", 4, 1),
    "DISC, share 1/3": (lambda: AllClean(start_epoch=1, strong=NOISE, share=1 / 3), "-", 1, 1),
    "DISC, share 1/4": (lambda: AllClean(start_epoch=1, strong=NOISE, share=1 / 4), "<= 2.2", 1, 1),
}


@pytest.mark.parametrize("name", METHODS)
def test_a_method(figures, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make, goal, passes, networks = METHODS[name]
    rounds = []
    for _ in range(3):  # in turns, so that all see the same load
        ours, plain = step_seconds(make()), step_seconds()
        rounds.append((ours / plain, ours / step_seconds(passes=passes, networks=networks) if passes > 1 else None))
    figures.add(f"{name} / cross entropy, step", "", statistics.median(ratio for ratio, _ in rounds), goal)
    if passes > 1:
        of_passes = statistics.median(ratio for _, ratio in rounds)
        figures.add(f"{name} / its {passes} passes, step", "", of_passes, "<= 1.15")

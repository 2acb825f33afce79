"""What an epoch of DivideMix and UNICON costs, against the passes through the networks that it has to make."""

import statistics
import time

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from medbolt.core import EvaluationTransform, ImageDataModule, ImageDataset, MultiView, TimmClassifier
from medbolt.noisy import UNICON, DivideMix
from medbolt.noisy.dividemix.uniform_split import UniformSplit

CLASSES, BATCH, SIZE = 5, 128, 256


class Data(ImageDataModule):
    """Images in memory, two views of each."""

    class_names = [str(c) for c in range(CLASSES)]

    def __init__(self):
        views = MultiView([EvaluationTransform(28), EvaluationTransform(28)])
        super().__init__(BATCH, image_size=28, train_transform=views)

    def load(self, split):
        size = SIZE if split == "train" else BATCH
        images = torch.randint(0, 256, (size, 3, 28, 28), dtype=torch.uint8)
        return ImageDataset(images, torch.arange(size) % CLASSES, [f"{split}{i}" for i in range(size)])


def network():
    torch.manual_seed(0)
    return TimmClassifier("resnet10t", CLASSES)


def sgd(parameters):
    return torch.optim.SGD(parameters, 0.01, momentum=0.9)


class Passes(LightningModule):
    """Loads the same batches and does what no implementation can do without: forward, backward, optimizer."""

    def __init__(self, contrasted=0):
        super().__init__()
        self.networks, self.contrasted = nn.ModuleList([network(), network()]), contrasted

    def training_step(self, batch, batch_idx):
        views = batch["views"].flatten(0, 1)
        with torch.no_grad():
            self.eval()
            if batch_idx == 0:
                for clean in self.trainer.datamodule.train_eval_dataloader():
                    for each in self.networks:
                        each(clean["image"])
            for each in self.networks:
                each(views)
            self.train()
        target = batch["target"].repeat_interleave(2)
        loss = sum(nn.functional.cross_entropy(each(views), target) for each in self.networks)
        if self.contrasted:
            loss = loss + sum(each(views[: 2 * self.contrasted]).square().mean() for each in self.networks)
        return loss

    def configure_optimizers(self):
        return sgd(self.parameters())


class Clock(Callback):
    """Notes how long each epoch but the first takes."""

    def __init__(self):
        self.times = []

    def on_train_epoch_start(self, trainer, pl_module):
        self.start = time.perf_counter()

    def on_train_epoch_end(self, trainer, pl_module):
        if trainer.current_epoch:
            self.times.append(time.perf_counter() - self.start)


def epoch_seconds(module):
    clock = Clock()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    run = Trainer(max_epochs=3, accelerator="cpu", callbacks=[clock], limit_val_batches=0, **quiet)
    run.fit(module, datamodule=Data())
    return statistics.median(clock.times)


class HalfLabelled(UniformSplit):
    """Labels every other sample, so that the contrastive passes are known."""

    def update(self, trainer, module, networks, classes):
        super().update(trainer, module, networks, classes)
        self.memory["labelled"][:] = (torch.arange(SIZE) % 2 == 0)[:, None]


def unicon():
    task = UNICON(network(), CLASSES, warmup_epochs=0, optimizer=sgd)
    task.split = HalfLabelled(0.7, 5.0)
    return task


METHODS = {
    "DivideMix": (lambda: DivideMix(network(), CLASSES, warmup_epochs=0, optimizer=sgd), 0),
    "UNICON": (unicon, BATCH // 2),
}


@pytest.mark.parametrize("name", METHODS)
def test_an_epoch(figures, name):
    make, contrasted = METHODS[name]
    rounds = [(epoch_seconds(make()), epoch_seconds(Passes(contrasted))) for _ in range(3)]
    ours, passes = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(mine / other for mine, other in rounds)
    figures.add(f"{name} / its passes, epoch", f"{ours:.3g} s / {passes:.3g} s", ratio, "<= 1.15")

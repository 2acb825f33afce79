"""A data module small enough to train on in a blink."""

from collections.abc import Callable

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn

from medbolt.core import ClassificationTask, ImageDataModule, ImageDataset


class Bright(ImageDataModule):
    """Images whose brightness is the class, with a long tail: 40, 20, 10 and 5 training samples."""

    def __init__(self, kind: str = "classes") -> None:
        super().__init__(batch_size=16, image_size=None, seed=7)
        self.kind = kind

    def load(self, split):
        sizes = torch.tensor([40, 20, 10, 5]) if split == "train" else torch.tensor([6, 6, 6, 6])
        target = torch.repeat_interleave(torch.arange(4), sizes)
        images = (target * 60)[:, None, None, None].expand(-1, 3, 4, 4).to(torch.uint8)
        ids = [f"{split}{i}" for i in range(len(target))]
        targets = {"classes": target, "labels": nn.functional.one_hot(target).float(), "none": None}
        return ImageDataset(images, targets[self.kind], ids)

    @property
    def class_names(self):
        return list("abcd")


class Kept(LightningModule):
    """Trains a network, by default its ``make()``, and keeps its batches, logits and losses."""

    make: Callable[[], nn.Module]

    def __init__(self, lr: float = 0.0, criterion: nn.Module | None = None, network: nn.Module | None = None) -> None:
        super().__init__()
        self.lr, self.model, self.criterion = lr, network or self.make(), criterion or nn.CrossEntropyLoss()
        self.batches, self.logits, self.losses = [], [], []

    def training_step(self, batch, batch_idx):
        logits = self.model(batch["image"])
        loss = self.criterion(logits, batch["target"])
        self.batches.append(batch)
        self.logits.append(logits.detach())
        self.losses.append(float(loss.detach()))
        return loss

    def validation_step(self, batch, batch_idx):
        logits = self.model(batch["image"])
        assert len(logits) == len(batch["target"])
        return logits

    test_step = predict_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


@pytest.fixture
def keeping() -> Callable[[Callable[[], nn.Module]], type[Kept]]:
    return lambda make: type("Kept", (Kept,), {"make": staticmethod(make)})


@pytest.fixture
def bright() -> type[Bright]:
    return Bright


@pytest.fixture
def make_task() -> Callable[..., ClassificationTask]:
    def make(**options):
        torch.manual_seed(0)
        return ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(48, 4)), 4, **options)

    return make


@pytest.fixture
def make_trainer(tmp_path) -> Callable[..., Trainer]:
    def make(**options):
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
        defaults = {"max_epochs": 1, "enable_checkpointing": False}
        return Trainer(accelerator="cpu", default_root_dir=tmp_path, **(quiet | defaults | options))

    return make

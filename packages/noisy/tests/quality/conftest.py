"""Small pictures whose class is the brightest colour, a network that learns it, and a quiet trainer."""

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from lightning.pytorch import Callback, Trainer

_CODE = '''
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader, WeightedRandomSampler

from medbolt.core import ClassificationTask, ImageDataModule, ImageDataset, UserError


class Colours(ImageDataModule):
    """Pictures of two patients each; class k is bright in colour k. ``broken`` cannot be read after some pictures."""

    def __init__(self, num_train: int = 120, broken: int = 0, batch_size: int = 12, drop_last: bool = False):
        super().__init__(batch_size, image_size=None, drop_last=drop_last)
        self.sizes, self.broken = {"train": num_train, "val": 12, "test": 12}, broken
        self.train_transform = self.eval_transform

    class_names = ["red", "green", "blue"]

    def load(self, split):
        size = self.sizes[split]
        target = torch.arange(size) // 2 % 3
        generator = torch.Generator().manual_seed(len(split))
        images = 60 + 40 * torch.randn(size, 3, 8, 8, generator=generator)
        images[torch.arange(size), target] += 50
        pictures = Pictures(images.clamp(0, 255).byte(), self)
        names = [f"{split}/{i:03}.png" for i in range(size)]
        return ImageDataset(pictures, target, names, groups=[f"patient {i // 2}" for i in range(size)])


class Pictures:
    def __init__(self, images, data):
        self.images, self.data, self.read = images, data, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, row):
        self.read += 1
        if self.data.broken and self.read > self.data.broken:
            raise UserError("the disk is gone; mount it.")
        return self.images[row]


class Network(nn.Sequential):
    def __init__(self, num_classes: int, width: int = 16):
        layers = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, width), nn.ReLU(), nn.Linear(width, num_classes)
        super().__init__(*layers)


class Tuples(LightningDataModule):
    """The same pictures as a data module that knows nothing of medbolt; 24 labels of 120 are wrong."""

    def __init__(self, weighted: bool = False, keys: bool = False, targets: bool = True, size: int = 120):
        super().__init__()
        self.size = size
        self.weighted, self.keys, self.targets = weighted, keys, targets

    def setup(self, stage):
        assert self.trainer is not None
        own = Colours().dataset("train")
        self.right = own.targets
        self.labels = torch.where(torch.arange(120) % 5 == 0, (own.targets + 1) % 3, own.targets)
        names = ("image", "label") if self.keys else (0, 1)
        rows = [dict(zip(names, (own.images[i].float() / 255, self.labels[i]))) for i in range(self.size)]
        self.train = Samples(rows if self.keys else [tuple(row.values()) for row in rows])
        if self.targets:
            self.train.targets = self.labels[: self.size].tolist()

    def train_dataloader(self):
        sampler = WeightedRandomSampler(torch.ones(120), 120) if self.weighted else None
        return DataLoader(self.train, 12, shuffle=not self.weighted, sampler=sampler)


class Samples(list):
    pass


class Untested(LightningModule):
    """A module as in Lightning's documentation."""

    def __init__(self):
        super().__init__()
        self.net = Network(3)

    def training_step(self, batch, batch_idx):
        image, label = batch.values() if isinstance(batch, dict) else batch
        return nn.functional.cross_entropy(self.net(image), label)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 0.03)


class Tested(Untested):
    def test_step(self, batch, batch_idx):
        return self.training_step(batch, batch_idx)


def task(**options):
    torch.manual_seed(0)
    return ClassificationTask(Network(3), 3, optimizer=lambda p: torch.optim.SGD(p, 0.3), **options)
'''


@pytest.fixture(scope="session")
def colours(tmp_path_factory: pytest.TempPathFactory) -> ModuleType:
    """Return the importable module ``colours_for_tests``."""
    folder: Path = tmp_path_factory.mktemp("code")
    (folder / "colours_for_tests.py").write_text(_CODE)
    sys.path.insert(0, str(folder))
    return importlib.import_module("colours_for_tests")


@pytest.fixture
def trainer(tmp_path: Path):
    """Return a function that makes a quiet trainer on one CPU."""

    def make(*callbacks: Callback, epochs: int = 1, **options: Any) -> Trainer:
        defaults: dict[str, Any] = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
        defaults |= {"enable_model_summary": False, "num_sanity_val_steps": 0, "default_root_dir": tmp_path}
        return Trainer(
            accelerator="cpu", devices=1, max_epochs=epochs, callbacks=list(callbacks), **(defaults | options)
        )

    return make

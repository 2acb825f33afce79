"""A small network to give experts to, and long-tailed images that overlap."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from medbolt.core import ClassificationTask, EvaluationTransform, ImageDataModule, ImageDataset
from medbolt.longtail import AddExperts

COUNTS = [200, 20, 4]


class Small(nn.Module):
    """Shared layers, a part that experts may have for themselves, a layer without weights, and a head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem = nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.BatchNorm1d(16))
        self.body = nn.Sequential(nn.ReLU(), nn.Linear(16, 8), nn.BatchNorm1d(8))
        self.relu = nn.ReLU()
        self.head = nn.Linear(8, 3)

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.relu(self.body(self.stem(image))))


class Overlapping(ImageDataModule):
    """Noisy images whose brightness is one of three classes: 200, 20 and 4 for training, tests as asked for."""

    def __init__(self, batch_size=32, test=(60, 60, 60), seed=7, soft=False, **options) -> None:
        options = {"image_size": None, "train_transform": EvaluationTransform(None)} | options
        super().__init__(batch_size, seed=seed, **options)
        self.test, self.soft = test, soft

    def load(self, split):
        sizes = torch.tensor(COUNTS if split == "train" else self.test)
        target = torch.repeat_interleave(torch.arange(3), sizes)
        generator = torch.Generator().manual_seed(len(split))
        noise = torch.randn(len(target), 1, 2, 2, generator=generator) * 70
        images = (80 + 45 * target[:, None, None, None] + noise).clamp(0, 255).to(torch.uint8).expand(-1, 3, -1, -1)
        if self.soft:
            target = 0.9 * nn.functional.one_hot(target, 3) + 0.1 / 3
        return ImageDataset(images, target, [f"{split}{i}" for i in range(len(images))])

    @property
    def class_names(self):
        return ["common", "less", "rare"]


@pytest.fixture
def small() -> type[Small]:
    return Small


@pytest.fixture
def kept(keeping):
    return keeping(Small)


@pytest.fixture
def overlapping() -> type[Overlapping]:
    return Overlapping


@pytest.fixture
def add() -> Callable[..., AddExperts]:
    def make(number=3, **options):
        return AddExperts(number, **({"parts": ["body"]} | options))

    return make


@pytest.fixture
def task() -> Callable[..., ClassificationTask]:
    def make(**options):
        return ClassificationTask(Small(), 3, optimizer=lambda p: torch.optim.Adam(p, 0.01), **options)

    return make

"""A small convolutional network, and long-tailed images that vary alike."""

import pytest
import torch
from torch import nn

from medbolt.core import EvaluationTransform, ImageDataModule, ImageDataset

COUNTS = [200, 20, 4]


class Maps(nn.Module):
    """Maps of 6 channels and 4 px, more layers without batch norm, and a head."""

    def __init__(self, outputs: int = 3, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, outputs)

    def forward(self, image):
        return self.head(self.body(self.stem(image)))


class Colored(ImageDataModule):
    """Noisy images of three classes, 200, 20 and 4 for training: the second is redder, the third greener.

    In all of them each color varies from image to image, blue the most.
    """

    def __init__(self, batch_size=32, soft=False, sizes=COUNTS, **options) -> None:
        options = {"image_size": None, "train_transform": EvaluationTransform(None)} | options
        super().__init__(batch_size, seed=7, **options)
        self.soft, self.sizes = soft, sizes

    def load(self, split):
        target = torch.repeat_interleave(torch.arange(3), torch.tensor(self.sizes if split == "train" else [100] * 3))
        generator = torch.Generator().manual_seed(len(split))
        images = 110 + torch.randn(len(target), 3, 4, 4, generator=generator) * 15
        images += torch.randn(len(target), 3, 1, 1, generator=generator) * torch.tensor([15, 15, 40])[:, None, None]
        for channel in (0, 1):
            images[target == channel + 1, channel] += 50
        images = images.clamp(0, 255).to(torch.uint8)
        if self.soft:
            target = 0.9 * nn.functional.one_hot(target, 3) + 0.1 / 3
        return ImageDataset(images, target, [f"{split}{i}" for i in range(len(images))])

    @property
    def class_names(self):
        return ["common", "less", "rare"]


@pytest.fixture
def network() -> type[Maps]:
    return Maps


@pytest.fixture
def kept(keeping):
    return keeping(Maps)


@pytest.fixture
def colored() -> type[Colored]:
    return Colored

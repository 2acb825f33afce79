"""Blobs in pixel space, 40 % of whose training labels are wrong, and a network that can learn them by heart."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from medbolt.core import ImageDataModule, ImageDataset


class Pixels(nn.Module):
    """Values around 0, with noise of its own for each view."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise = noise

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        image = sample["image"].as_subclass(Tensor).float() / 64 - 2
        return sample | {"image": image + self.noise * torch.randn(image.shape)}


class Blobs(ImageDataModule):
    """Noisy pictures of 4 x 4 px of as many classes as counts; labels may be wrong in the training split only."""

    def __init__(self, counts: Sequence[int] = (32,) * 4, wrong: float = 0.0, batch_size: int = 32, **options) -> None:
        super().__init__(batch_size, 0, None, Pixels(0.3), Pixels(0.0), **options)
        self.counts, self.wrong = list(counts), wrong

    @property
    def class_names(self) -> list[str]:
        return [f"blob {c}" for c in range(len(self.counts))]

    def load(self, split) -> ImageDataset:
        generator = torch.Generator().manual_seed(len(split))
        counts = torch.tensor(self.counts if split == "train" else [64] * len(self.counts))
        self.clean = torch.arange(len(counts)).repeat_interleave(counts)
        size = len(self.clean)
        centres = torch.rand(len(counts), 3, 4, 4, generator=torch.Generator().manual_seed(0))
        pixels = 128 + 64 * (centres[self.clean] - 0.5 + 0.6 * torch.randn(size, 3, 4, 4, generator=generator))
        labels = self.clean
        if split == "train":
            other = (labels + torch.randint(1, len(counts), (size,), generator=generator)) % len(counts)
            labels = torch.where(torch.rand(size, generator=generator) < self.wrong, other, labels)
        return ImageDataset(pixels.clamp(0, 255).to(torch.uint8), labels, [f"{split}{i}" for i in range(size)])


@pytest.fixture(scope="session")
def blobs() -> type[Blobs]:
    return Blobs


@pytest.fixture(scope="session")
def network() -> Callable[..., nn.Module]:
    """Return a function that makes a network, always the same."""

    def make(width: int = 256, classes: int = 4) -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Flatten(), nn.Linear(48, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, classes)
        )

    return make

"""A small network whose mixed inputs and losses can be looked at, and long-tailed images."""

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from medbolt.core import EvaluationTransform, ImageDataModule, ImageDataset


class Tailed(ImageDataModule):
    """Pictures of 4 px of three classes, 24, 6 and 2 for training, each of one grey value of its own."""

    def __init__(self, batch_size=8, seed=0, **options) -> None:
        super().__init__(batch_size, image_size=None, train_transform=EvaluationTransform(None), seed=seed, **options)

    def load(self, split):
        target = torch.repeat_interleave(torch.arange(3), torch.tensor([24, 6, 2] if split == "train" else [2, 2, 2]))
        images = (3 * torch.arange(len(target)))[:, None, None, None].expand(-1, 3, 4, 4).to(torch.uint8)
        return ImageDataset(images, target, [f"{split}{i}" for i in range(len(target))])

    @property
    def class_names(self):
        return ["common", "less", "rare"]


class Watched(LightningModule):
    """A linear classifier that keeps what its network was given, its batches and its losses."""

    def __init__(self, lr: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lr = lr
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        self.criterion = nn.CrossEntropyLoss()
        self.batches, self.inputs, self.losses = [], [], []

    def training_step(self, batch, batch_idx):
        handle = self.model[0].register_forward_pre_hook(lambda _, inputs: self.inputs.append(inputs[0].detach()))
        loss = self.criterion(self.model(batch["image"]), batch["target"])
        handle.remove()
        self.batches.append(batch)
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


@pytest.fixture
def tailed() -> type[Tailed]:
    return Tailed


@pytest.fixture
def watched() -> type[Watched]:
    return Watched

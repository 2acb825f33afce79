"""LightningModules and data modules that are not ours, unmodified, for tests of what reaches them.

Each function returns a module, its data and the names that an objective callback needs: criterion and network.
"""

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.demos.transformer import LightningTransformer, WikiText2
from torch import nn
from torch.utils.data import DataLoader

SIZE = 8
TEXT = "the eye has a disc a cup vessels\n"  # eight words and the end of the line


class DocumentationStyle(LightningModule):
    """What Lightning's documentation teaches: tuple batches and a functional loss."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = F.cross_entropy(self.layers(x), y)
        self.log("train_loss", loss)
        return loss

    def validation_step(self, batch, batch_idx):
        x, y = batch
        self.log("val_loss", F.cross_entropy(self.layers(x), y), sync_dist=True)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=1e-2)


class Samples(LightningDataModule):
    """A data module that knows nothing of medbolt; one batch an epoch over all processes."""

    def __init__(self, samples: Any, validates: bool = True) -> None:
        super().__init__()
        self.samples = samples
        if validates:
            self.val_dataloader = lambda: self.loader()

    def loader(self, **options: Any) -> DataLoader:
        return DataLoader(self.samples, batch_size=SIZE // self.trainer.world_size, **options)

    def train_dataloader(self) -> DataLoader:
        return self.loader(shuffle=True)


def documentation_style(folder: Path) -> tuple[LightningModule, LightningDataModule, dict[str, str]]:
    samples = [(torch.randn(3, 2, 2), i % 3) for i in range(SIZE)]
    return DocumentationStyle(), Samples(samples), {"criterion": "functional", "network": "layers"}


def lightning_transformer(folder: Path) -> tuple[LightningModule, LightningDataModule, dict[str, str]]:
    """Lightning's demo: log-probabilities and ``nll_loss``, dropout, an input with the targets in it."""
    words = WikiText2(folder, block_size=1, download=False)
    module = LightningTransformer(vocab_size=words.vocab_size)
    module.prepare_data = lambda: None  # it would download a text
    return module, Samples(words, validates=False), {"criterion": "functional"}


def torchgeo_classification(folder: Path) -> tuple[LightningModule, LightningDataModule, dict[str, str]]:
    """torchgeo's task: dict batches, a criterion attribute, batch norm, its own metrics and a scheduler."""
    from torchgeo.trainers import ClassificationTask

    samples = [{"image": torch.randn(3, 32, 32), "label": i % 3} for i in range(SIZE)]
    return ClassificationTask("resnet18", num_classes=3, loss="ce"), Samples(samples), {}

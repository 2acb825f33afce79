"""Small images, a small module and a trainer for tests on one or several processes."""

import os
from collections.abc import Mapping
from typing import Any

import torch
import torchmetrics
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core import ImageDataModule, ImageDataset


class ToyImages(ImageDataModule):
    """Random 8 px pictures of three classes; sample ``i`` has class ``i % 3`` and the name ``split-i``."""

    def __init__(self, sizes: Mapping[str, int] | None = None, batch_size: int = 4, **options: Any) -> None:
        super().__init__(batch_size=batch_size, image_size=8, **options)
        self.sizes = {"train": 24, "val": 9, "test": 9} | dict(sizes or {})

    @property
    def class_names(self) -> list[str]:
        return ["none", "mild", "severe"]

    def load(self, split) -> ImageDataset:
        size = self.sizes[split]
        generator = torch.Generator().manual_seed(len(split))
        images = torch.randint(0, 256, (size, 3, 8, 8), generator=generator, dtype=torch.uint8)
        targets = torch.arange(size) % 3
        return ImageDataset(images, targets, [f"{split}-{i}" for i in range(size)])  # pyright: ignore[reportArgumentType]


class ToyClassifier(LightningModule):
    """Convolution, batch norm, dropout; remembers the indices it saw and logs ``loss`` and ``recall`` exactly."""

    def __init__(self, lr: float = 0.1, dropout: float = 0.3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.lr = lr
        self.model = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3)
        )
        self.criterion = nn.CrossEntropyLoss()
        self.mean_loss = torchmetrics.MeanMetric()
        self.recall = torchmetrics.Recall("multiclass", num_classes=3, average="macro")
        self.seen: list[tuple[int, int, list[int]]] = []
        self.evaluated: list[int] = []

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        self.seen.append((self.current_epoch, batch_idx, batch["index"].tolist()))
        return self.criterion(self.model(batch["image"]), batch["target"])

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        logits, target = self.model(batch["image"]), batch["target"]
        self.evaluated += batch["index"].tolist()
        self.mean_loss.update(nn.functional.cross_entropy(logits, target, reduction="none"))
        self.recall.update(logits, target)
        self.log_dict({"loss": self.mean_loss, "recall": self.recall}, on_step=False, on_epoch=True)

    test_step = validation_step

    def predict_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        return batch["index"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), self.lr, momentum=0.9)


def weights(module: nn.Module) -> Tensor:
    """Return all parameters and buffers of a module as one vector."""
    return torch.cat([value.detach().flatten().double() for value in module.state_dict().values()])


def trainer(*callbacks: Callback, epochs: int = 1, **options: Any) -> Trainer:
    """Return a quiet trainer on all processes of this run."""
    defaults: dict[str, Any] = {
        "devices": int(os.environ.get("WORLD_SIZE", "1")),
        "max_epochs": epochs,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
    }
    return Trainer(accelerator="cpu", callbacks=list(callbacks), **(defaults | options))

"""What configurations of the smallest runs name: a linear network, data that are not medbolt's, a method by index."""

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from medbolt.core import ObjectiveCallback, TrainingStep


class Linear(nn.Module):
    """A linear classifier of 8 px pictures.

    Args:
        num_classes: Number of classes.
        fails: Raise an error that is no refusal of an argument.
    """

    def __init__(self, num_classes: int, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, num_classes))

    def forward(self, image: Tensor) -> Tensor:
        if self.fails:
            raise ValueError("raised in training")
        return self.layers(image)


class Tuples(LightningDataModule):
    """Batches of picture and label for ``foreign_modules.DocumentationStyle``, without an index.

    Args:
        shift: Another number labels the samples otherwise.
    """

    def __init__(self, shift: int = 0) -> None:
        super().__init__()
        self.shift = shift

    def train_dataloader(self) -> DataLoader:
        samples = TensorDataset(torch.zeros(8, 3, 2, 2), (torch.arange(8) + self.shift) % 3)
        samples.targets = samples.tensors[1]  # pyright: ignore[reportAttributeAccessIssue]
        return DataLoader(samples, batch_size=4)


class ByIndex(ObjectiveCallback):
    """A method that asks which samples a batch holds, and changes nothing.

    Args:
        remembers: It has a memory of every sample.
    """

    def __init__(self, remembers: bool = False, criterion: str = "criterion") -> None:
        super().__init__(criterion)
        self.remembers = remembers

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        super().setup(trainer, pl_module, stage)
        if stage == "fit" and self.remembers:
            self.remember(trainer, loss=torch.zeros(()))

    def objective(self, step: TrainingStep) -> Tensor:
        return step.loss() + 0 * step.index

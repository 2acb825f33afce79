"""
A network learns wrong labels late
==================================

Four of ten labels are wrong. Plain training gets better, then learns the wrong labels by heart and gets worse. Two
methods are added to the same LightningModule as callbacks: one remembers what the network said early on, the other
trains a second network that chooses what the first one learns from.
"""

# %%
# A module and data that know nothing of medbolt. Four classes in the plane, and fourteen dimensions of nothing, in
# which labels can be learnt by heart.

import matplotlib.pyplot as plt
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningDataModule, LightningModule, Trainer, seed_everything
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from medbolt.core import Indexed
from medbolt.noisy import CoTeaching, EarlyLearningRegularization

CENTRES = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])


def points(size: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    y = torch.randint(0, 4, (size,), generator=generator)
    x = torch.randn(size, 16, generator=generator)
    x[:, :2] = CENTRES[y] * 2 + x[:, :2]
    return x, y


class Points(LightningDataModule):
    def train_dataloader(self):
        x, y = points(500, seed=0)
        generator = torch.Generator().manual_seed(1)
        is_wrong = torch.rand(500, generator=generator) < 0.4
        others = (y + torch.randint(1, 4, (500,), generator=generator)) % 4
        return DataLoader(TensorDataset(x, torch.where(is_wrong, others, y)), batch_size=50, shuffle=True)


class Classifier(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Sequential(nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 4))
        self.test_points = points(2000, seed=2)
        self.curve = []

    def training_step(self, batch, batch_idx):
        x, y = batch
        return F.cross_entropy(self.model(x), y)

    def on_train_epoch_end(self):
        x, y = self.test_points
        with torch.no_grad():
            self.curve.append(float((self.model(x).argmax(1) == y).float().mean()))

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=0.003)


# %%
# The same module three times; ``Indexed`` tells which samples a batch holds, which remembering them needs.


def train(*callbacks):
    seed_everything(0, verbose=False)
    module = Classifier()
    options = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = Trainer(
        max_epochs=60, accelerator="cpu", callbacks=list(callbacks), enable_model_summary=False, **options
    )
    trainer.fit(module, datamodule=Indexed(Points()))
    return module.curve


curves = {
    "cross entropy": train(),
    "ELR": train(EarlyLearningRegularization(weight=3.0, num_classes=4, criterion="functional")),
    "Co-teaching": train(CoTeaching(forget_rate=0.4, criterion="functional")),
}

# %%
# Accuracy on clean labels, epoch by epoch.

for name, curve in curves.items():
    print(f"{name:>14}: best {max(curve):.3f}, mean of the last five {sum(curve[-5:]) / 5:.3f}")
    plt.plot(curve, label=name)
plt.xlabel("epoch")
plt.ylabel("accuracy, clean labels")
plt.legend()
plt.show()

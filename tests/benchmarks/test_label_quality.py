"""How well LabelQuality finds wrong labels: SyntheticFundus with 20 % symmetric noise, ten epochs of a small ResNet."""

from dataclasses import replace

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback

from medbolt.core import (
    ClassificationTask,
    DataModuleWrapper,
    ImageDataset,
    SyntheticFundusDataModule,
    TimmClassifier,
    TrainingTransform,
)
from medbolt.core.data.base import Split
from medbolt.noisy import LabelQuality, NoisyLabels, SymmetricNoise

IMAGES, EPOCHS, RATE, BATCH = 2000, 10, 0.2, 64
STATISTICS = ("aum", "probability", "mean_loss", "loss", "learned", "forgotten")


class Drawn(DataModuleWrapper):
    """Draw every picture once."""

    def load(self, split: Split) -> ImageDataset:
        dataset = super().load(split)
        return replace(dataset, images=torch.stack([dataset.images[row] for row in range(dataset.base_size)]))


class Areas(Callback):
    """Keep what was logged after each epoch."""

    def __init__(self):
        self.epochs = []

    def on_train_epoch_end(self, trainer, pl_module):
        self.epochs.append({name: float(value) for name, value in trainer.callback_metrics.items()})


@pytest.mark.parametrize("size", [64])
def test_wrong_labels_are_found(figures, tmp_path, size):
    """AUROC of each statistic against the labels that the noise flipped; the default score is the first."""
    torch.manual_seed(0)
    # as in lightning_configs/data/synthetic_fundus.yaml: lesions are small
    transform = TrainingTransform(size, crop_scale=(0.9, 1.0), flips="none", rotation=15)
    fundus = SyntheticFundusDataModule(
        IMAGES, 40, 8, image_size=size, masks=False, batch_size=BATCH, train_transform=transform
    )
    data = NoisyLabels(Drawn(fundus), SymmetricNoise(RATE))
    task = ClassificationTask(
        TimmClassifier("resnet10t", 5), 5, optimizer=lambda p: torch.optim.AdamW(p, 0.002, weight_decay=0.05)
    )
    areas = Areas()
    trainer = Trainer(
        max_epochs=EPOCHS,
        callbacks=[LabelQuality(folder=tmp_path), areas],
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        num_sanity_val_steps=0,
    )
    trainer.fit(task, datamodule=data)
    last = areas.epochs[-1]
    for name in STATISTICS:
        goal = ">= 0.90" if name == LabelQuality().score else "-"
        found = f"{IMAGES} images of {size} px, {EPOCHS} epochs"
        figures.add(f"AUROC of wrong labels, {name}", found, last[f"lnl/auroc/{name}"], goal)
    figures.add("estimated noise rate", f"true rate {data.report().rate:.3f}", last["lnl/estimated_rate"], "-")

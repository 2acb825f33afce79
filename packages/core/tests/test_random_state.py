# ruff: noqa: NPY002  (the legacy generator is what users draw from)
import random

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run
from torch import nn
from torch.utils.data import DataLoader, Dataset, WeightedRandomSampler
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState


class Points(Dataset):
    """A foreign data set that augments with all three generators."""

    def __len__(self):
        return 16

    def __getitem__(self, i):
        noise = torch.rand(1) + random.random() + np.random.rand()
        return torch.full((4,), float(i)) + 0.1 * noise, i


class Foreign(LightningDataModule):
    def __init__(self, workers, sampler=None):
        super().__init__()
        self.workers, self.sampler = workers, sampler

    def train_dataloader(self):
        order = {"shuffle": True} if self.sampler is None else {"sampler": self.sampler}
        return DataLoader(Points(), batch_size=4, num_workers=self.workers, **order)

    def val_dataloader(self):
        return DataLoader(Points(), batch_size=8, num_workers=self.workers)


class Random(LightningModule):
    """A foreign module with dropout, MixUp and noise from NumPy and Python."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Linear(32, 2))
        self.seen, self.noise = [], []

    def training_step(self, batch, batch_idx):
        x, i = batch
        self.seen.append(i.tolist())
        self.noise.append((random.random(), float(np.random.rand()), float(torch.rand(1))))
        share = float(np.random.beta(1, 1))
        mixed = share * x + (1 - share) * x[torch.randperm(len(x))] + random.random()
        return self.model(mixed / 16).square().mean()

    def validation_step(self, batch, batch_idx):
        torch.rand(3)

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def fit(data, *callbacks, module=Random, path=None, disturb=0, **options):
    """Fit with generators that stand wherever the past has left them."""
    module = module()
    torch.manual_seed(disturb)
    np.random.seed(disturb)
    random.seed(disturb)
    trainer(RandomState(seed=5), *callbacks, **options).fit(module, datamodule=data, ckpt_path=path)
    return module


def every_epoch(folder, **options):
    return ModelCheckpoint(folder, "{epoch}", save_top_k=-1, **options)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("sampler", "saves"),
    [
        (None, {}),
        (None, {"save_on_train_epoch_end": False}),
        (WeightedRandomSampler([1.0] * 8 + [2.0] * 8, 12), {}),
    ],
    ids=["epoch end", "validation end", "weighted"],
)
def test_a_foreign_run_interrupted_between_epochs_is_the_uninterrupted_one(workers, sampler, saves, tmp_path):
    data = Foreign(workers, sampler)
    whole = fit(data, every_epoch(tmp_path, **saves), epochs=3, enable_checkpointing=True)
    resumed = fit(data, path=tmp_path / "epoch=1.ckpt", epochs=3, disturb=99)
    assert resumed.seen == whole.seen[-len(resumed.seen) :]
    assert torch.equal(weights(resumed), weights(whole))
    assert whole.seen[: len(resumed.seen)] != resumed.seen


def test_a_checkpoint_of_the_last_batch_goes_on_with_the_next_epoch(tmp_path):
    whole = fit(Foreign(2), every_epoch(tmp_path, every_n_train_steps=4), epochs=3, enable_checkpointing=True)
    resumed = fit(Foreign(2), path=tmp_path / "epoch=1.ckpt", epochs=3, disturb=99)
    assert resumed.seen == whole.seen[8:]
    assert torch.equal(weights(resumed), weights(whole))


def test_an_epoch_that_is_cut_short_is_over(tmp_path):
    class Skips(Random):
        def on_train_batch_start(self, batch, batch_idx):
            return -1 if batch_idx == 2 else None

    whole = fit(Foreign(2), every_epoch(tmp_path), module=Skips, epochs=3, enable_checkpointing=True)
    resumed = fit(Foreign(2), module=Skips, path=tmp_path / "epoch=1.ckpt", epochs=3, disturb=99)
    assert resumed.seen == whole.seen[4:]
    assert torch.equal(weights(resumed), weights(whole))


def test_without_it_the_run_differs(tmp_path):
    class Without(Random):
        def on_fit_start(self):
            self.trainer.callbacks[:] = [c for c in self.trainer.callbacks if not isinstance(c, RandomState)]

    whole = fit(Foreign(0), every_epoch(tmp_path), module=Without, epochs=2, enable_checkpointing=True)
    resumed = fit(Foreign(0), module=Without, path=tmp_path / "epoch=0.ckpt", epochs=2, disturb=99)
    assert not torch.equal(weights(resumed), weights(whole))


def test_our_data_modules_resume_inside_an_epoch(tmp_path):
    class Noisy(ToyClassifier):
        def training_step(self, batch, batch_idx):
            noise = random.random() * np.random.rand()
            return super().training_step(batch | {"image": batch["image"] + noise}, batch_idx)

    saves = ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    whole = fit(ToyImages(), saves, module=Noisy, epochs=2, enable_checkpointing=True)
    resumed = fit(ToyImages(), module=Noisy, path=tmp_path / "step=4.ckpt", epochs=2, disturb=99)
    assert resumed.seen == whole.seen[4:]
    assert torch.equal(weights(resumed), weights(whole))


def test_the_run_depends_on_the_seed_alone():
    first, second = fit(Foreign(0), disturb=1, epochs=2), fit(Foreign(0), disturb=2, epochs=2)
    assert first.noise == second.noise
    assert first.seen == second.seen
    assert len(set(first.noise)) == len(first.noise)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_callback_that_has_run_before_begins_anew(workers):
    callback = RandomState(3)
    seen = []
    for _ in range(2):
        module = Random()
        trainer(callback, epochs=2).fit(module, datamodule=Foreign(workers))
        seen.append(module.seen)
    assert seen[0] == seen[1]


def test_a_fit_that_is_taken_up_again_in_the_same_process_goes_on():
    whole = fit(Foreign(0), epochs=3)
    module = Random()
    pausing = trainer(RandomState(5), epochs=2)
    pausing.fit(module, datamodule=Foreign(0))
    pausing.fit_loop.max_epochs = 3
    pausing.fit(module, datamodule=Foreign(0))
    assert module.seen == whole.seen
    assert module.noise == whole.noise


def test_the_seed_of_a_checkpoint_wins_and_its_state_is_plain():
    callback = RandomState(7)
    assert callback.state_dict() == {"seed": 7, "epoch": 0}
    other = RandomState(1)
    other.load_state_dict(callback.state_dict())
    assert other.seed == 7


def noise_of_each_process():
    module = Random()
    trainer(RandomState(5), epochs=2).fit(module, datamodule=Foreign(0))
    return module.noise


@pytest.mark.ddp
def test_processes_draw_different_numbers():
    zero, one = run(noise_of_each_process)
    assert not set(zero) & set(one)
    assert len(zero) == len(one) == 4

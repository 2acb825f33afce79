"""A callback that makes a run's randomness a function of where the run is."""

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from medbolt.core.randomness import derive_seed

_ALL = -1  # in place of a process: samplers of other data modules must draw the same order on all of them


class RandomState(Callback):
    """Seed every training batch from (seed, epoch, process, batch), so that a resumed run equals an uninterrupted one.

    Lightning's checkpoints hold no generator state, so after a resume dropout, MixUp and unseeded augmentation draw
    other numbers than the uninterrupted run did. With this callback they draw the same: torch (CPU and accelerators),
    NumPy and Python are seeded anew before each training batch and each epoch. In a batch processes draw different
    numbers; at the start of an epoch the same, for a sampler that shuffles must agree with its copies.

    medbolt's own data modules need it only for what happens inside the training step: their order and augmentation are
    functions of (seed, epoch) already. For other data modules the epoch's seed covers shuffling and workers' seeds, for
    checkpoints saved at the end of an epoch; not with ``persistent_workers``, whose generators outlive an epoch.

    Args:
        seed: Seed of the run. A checkpoint's seed wins when a run is resumed.

    State, cost: two integers; seeding three generators a batch, tens of microseconds.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[RandomState(seed=3)], logger=False, enable_checkpointing=False)
    """

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self._epoch = 0  # that a checkpoint saved now continues with

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Begin with the trainer's epoch; a checkpoint's is restored after this."""
        self._epoch = trainer.current_epoch

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the first epoch's loader: Lightning makes its iterator before the epoch starts."""
        _seed_everything(self.seed, self._epoch, _ALL)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seed the epoch."""
        # A resumed epoch's iterator exists already: it has drawn what the uninterrupted run drew after this.
        if not trainer.fit_loop.is_resuming:
            _seed_everything(self.seed, trainer.current_epoch, _ALL)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Seed the batch."""
        self._epoch = trainer.current_epoch
        _seed_everything(self.seed, self._epoch, trainer.global_rank, batch_idx)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Name the epoch that a checkpoint saved from here on continues with: the next one after the last batch."""
        if trainer.is_last_batch:
            self._epoch = trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do so for an epoch that was cut short."""
        self._epoch = trainer.current_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """Return the seed and the epoch to continue with."""
        return {"seed": self.seed, "epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.seed, self._epoch = state_dict["seed"], state_dict["epoch"]


def _seed_everything(*parts: int) -> None:
    seed = derive_seed(*parts)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002  the legacy generator is what users' augmentations draw from
    random.seed(seed)

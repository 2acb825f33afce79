"""The training loss of a task in its logs."""

from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from medbolt.core.batch import batch_size


def log_loss(module: LightningModule, loss: Tensor, batch: dict[str, Any]) -> None:
    """Log ``train/loss_step``, of this process's batch, and ``train/loss``, the mean of the epoch over all processes.

    One call for both would, with processes in step, wait for each other at every batch.

    Args:
        module: The module in training.
        loss: Mean loss of the batch, ().
        batch: The batch.

    Example:
        >>> class Step(LightningModule):
        ...     def training_step(self, batch, batch_idx):
        ...         loss = self(batch["image"]).mean()
        ...         log_loss(self, loss, batch)
        ...         return loss
    """
    size = batch_size(batch)
    module.log("train/loss_step", loss, prog_bar=True, on_step=True, on_epoch=False, batch_size=size)
    module.log("train/loss", loss, on_step=False, on_epoch=True, sync_dist=True, batch_size=size)

"""What a network says of a whole split, on every process: the material of everything that is tuned after training."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Literal

import numpy as np
import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import CombinedLoader
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from medbolt.core.batch import batch_target
from medbolt.core.errors import UserError, listed
from medbolt.core.objective.training_pass import device_batches, evaluation, network_input

Split = Literal["train", "val"]


class Collected:
    """Rows that a network gives, and the classes of the samples, batch by batch.

    Args:
        owner: Who asks, for messages.
    """

    def __init__(self, owner: object) -> None:
        self.owner = type(owner).__name__
        self.target: Tensor | None = None
        self._rows: list[Tensor] = []
        self._targets: list[Tensor] = []

    def begin(self, batch: Any) -> None:
        """Note the classes of a batch that the network is about to see."""
        self.target = class_target(batch, self.owner)

    def add(self, rows: Tensor) -> None:
        """Keep what the network gave, (B, ...)."""
        if self.target is not None and len(rows) == len(self.target):
            self._rows.append(rows.detach())
            self._targets.append(self.target)

    def gathered(self) -> tuple[Tensor, Tensor]:
        """Return (N, K) float64 rows and (N,) int64 classes of all processes, on the CPU.

        Their order does not depend on the number of processes, and so nothing does that is computed from them.
        """
        if not self._rows:
            raise UserError(
                f"{self.owner} saw no output of the network it watches; name the attribute that the module calls, e.g. "
                "network='net'."
            )
        rows, target = torch.cat(self._rows), torch.cat(self._targets).to(self._rows[0].device)
        if dist.is_available() and dist.is_initialized():
            rows, target = (torch.cat(gather_all_tensors(part)) for part in (rows.float().contiguous(), target))
        rows, target = rows.cpu().double(), target.cpu()
        keys = (*rows[:, :4].T.numpy(), target.numpy())
        order = torch.from_numpy(np.lexsort(keys))
        return rows[order], target[order]


def collect(
    trainer: Trainer,
    module: LightningModule,
    network: nn.Module,
    split: Split,
    collected: Collected,
    watch: Callable[[], AbstractContextManager[Any]],
) -> tuple[Tensor, Tensor]:
    """Run the network over a split in evaluation mode, and return what was collected; all processes call together.

    The network is called by itself, not by a step of the module, so it must take the batch's image as it is: put
    normalisation and the like into the transform or the network, not into the module around it.

    Args:
        trainer: The trainer of a running evaluation.
        module: Its module.
        network: Called with what :func:`~medbolt.core.network_input` finds in each batch.
        split: ``"train"``, without augmentation, or ``"val"``; of several validation loaders the first.
        collected: Where rows go; its ``add`` is called by ``watch``.
        watch: Makes a context in which calls of the network are collected.

    Raises:
        UserError: if there is no data module with that split.
    """
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    name = "train_eval_dataloader" if split == "train" else "val_dataloader"
    if not hasattr(data, name):
        raise UserError(
            f"{collected.owner} is fitted on the {'training' if split == 'train' else 'validation'} samples, but the "
            f"data have no {name}(); pass a data module, wrapped if it is not medbolt's: "
            "datamodule=medbolt.core.Indexed(datamodule)."
        )
    loader = getattr(data, name)()
    if split == "val":  # in fit too only the first is collected
        loader = (loader if isinstance(loader, CombinedLoader) else CombinedLoader(loader)).flattened[0]
    with evaluation(trainer, module), watch():
        for batch in device_batches(trainer, module, loader, f"{collected.owner}, {split}"):
            collected.begin(batch)
            network(network_input(batch))
    return collected.gathered()


def find_network(module: LightningModule, path: str, owner: object) -> nn.Module:
    """Return the network that an attribute names, or the module itself for ``"self"``.

    Raises:
        UserError: if there is none.
    """
    try:
        return module if path == "self" else module.get_submodule(path)
    except AttributeError:
        names = listed(name for name, _ in module.named_children())
        raise UserError(
            f"{type(module).__name__} has no network '{path}' whose output {type(owner).__name__} could see; set "
            f"network to one of {names or 'none'} or 'self'."
        ) from None


def class_target(batch: Any, owner: str) -> Tensor:
    """Return the classes of a batch, (B,) int64; the likeliest of soft ones.

    Raises:
        UserError: if there are none, or several a sample.

    Example:
        >>> class_target({"image": None, "target": torch.tensor([[0.2, 0.8]])}, "I")
        tensor([1])
    """
    target = batch_target(batch)
    if target is not None and target.ndim == 2 and target.shape[1] == 1:
        target = target[:, 0]
    if target is not None and target.ndim == 2 and ((target.float().sum(1) - 1).abs() < 1e-3).all():
        return target.argmax(1)
    if target is None or target.ndim != 1:
        found = "no target" if target is None else f"targets {tuple(target.shape)}"
        raise UserError(
            f"{owner} needs one class a sample, but the batch has {found}; yield (input, target) or a dict with "
            "'target'."
        )
    return target.long()

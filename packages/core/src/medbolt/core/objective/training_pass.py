"""One pass over the training set between epochs: what the network says of every sample, without augmentation."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from tqdm import tqdm

from medbolt.core.data.indexed import Indexed
from medbolt.core.errors import UserError
from medbolt.core.memory import SampleMemory


def training_pass(
    trainer: Trainer,
    module: LightningModule,
    function: Callable[[Any], dict[str, Tensor]],
    description: str = "training set",
    **fields: Tensor,
) -> SampleMemory:
    """Evaluate something on every training sample, in evaluation mode, and return it by index on every process.

    The samples come from the data module's ``train_eval_dataloader()``. The module's training mode, part by part, and
    torch's random state are the same afterwards.

    Args:
        trainer: The trainer of the running ``fit``; all processes call together.
        module: The module in training.
        function: Called with a batch on the module's device, without gradients, under the trainer's precision; returns
            (B, ...) tensors by field name. See :func:`network_input`.
        description: What the progress bar says; it is shown on process 0 where the trainer has a progress bar.
        fields: By name, the row of samples that the loader leaves out; see :class:`~medbolt.core.SampleMemory`.

    Raises:
        UserError: if the data module cannot say what its training samples are.

    Example:
        >>> from medbolt.core import ObjectiveCallback
        >>> class Confidence(ObjectiveCallback):
        ...     def setup(self, trainer, pl_module, stage):
        ...         super().setup(trainer, pl_module, stage)
        ...         if stage == "fit":
        ...             self.remember(trainer, confidence=torch.tensor(0.0))  # kept in checkpoints
        ...
        ...     def begin_epoch(self, trainer, pl_module):
        ...         def evaluate(batch):
        ...             return {"confidence": pl_module(network_input(batch)).softmax(1).amax(1)}
        ...
        ...         found = training_pass(trainer, pl_module, evaluate, confidence=torch.tensor(0.0))
        ...         self.memory["confidence"].copy_(found["confidence"])
    """
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    if not (hasattr(data, "train_eval_dataloader") and hasattr(data, "train_size")):
        raise UserError(
            "this method evaluates the training set between epochs, but the data have no train_eval_dataloader(); pass "
            "a data module, wrapped if it is not medbolt's: datamodule=medbolt.core.Indexed(datamodule)."
        )
    memory = SampleMemory(data.train_size, **fields).to(module.device)
    with evaluation(trainer, module):
        for batch in device_batches(trainer, module, data.train_eval_dataloader(), description):
            index = batch["index"] if isinstance(batch, Mapping) and "index" in batch else data.batch_index
            memory.write(index, **function(batch))
    memory.merge(trainer.strategy)
    return memory


@contextmanager
def evaluation(trainer: Trainer, module: LightningModule) -> Iterator[None]:
    """Run a block inside ``fit`` in evaluation mode, without gradients and under the trainer's precision.

    Afterwards every part of the module is in the mode it was in, torch's random state is the same, and
    :class:`~medbolt.core.Indexed` data know the index of the training batch again, which is on the device already.
    """
    training = {part: part.training for part in module.modules()}
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    index = data.batch_index if isinstance(data, Indexed) else None
    devices = [module.device] if module.device.type == "cuda" else []
    try:
        with torch.random.fork_rng(devices), torch.no_grad(), trainer.precision_plugin.val_step_context():
            module.eval()
            yield
    finally:
        if isinstance(data, Indexed):
            data.batch_index = index
        for part, was_training in training.items():
            part.training = was_training


def device_batches(trainer: Trainer, module: LightningModule, loader: Iterable[Any], description: str) -> Iterator[Any]:
    """Yield a loader's batches on the module's device, in its precision; process 0 shows the trainer's progress bar."""
    shown = trainer.is_global_zero and trainer.progress_bar_callback is not None
    for batch in tqdm(loader, desc=description, leave=False, disable=not shown):
        batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), 0)
        yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def network_input(batch: Any) -> Any:
    """Return what a network takes of a batch: the ``image`` of a dict, the first entry of a sequence, else all of it.

    Example:
        >>> network_input({"image": 1, "target": 0}), network_input((2, 0)), network_input(3)
        (1, 2, 3)
    """
    if isinstance(batch, Mapping):
        return batch["image"]
    return batch[0] if isinstance(batch, list | tuple) else batch

"""A second view of the batch, and what the module's own network makes of it."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.data.multi_view import add_view
from medbolt.core.data.strong_transform import strengthened
from medbolt.core.errors import UserError
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep


def ask_for_second_view(callback: ObjectiveCallback, trainer: Trainer, strong: nn.Module | None) -> None:
    """Have medbolt's data module make a strong second view for a fit, unless ``strong`` does or it makes views already.

    Its transform is the training transform with strong changes of colour and an erased square; see
    :class:`~medbolt.core.StrongTransform`. Call it in ``setup``, after that of the base class.
    """
    if strong is None:
        callback.undo_later(add_view(getattr(trainer, "datamodule", None), strengthened))


def second_view(callback: ObjectiveCallback, step: TrainingStep, strong: nn.Module | None) -> Tensor:
    """Return a second view of the images, (B, ...): a transform of what the network saw, else ``views`` of the batch.

    Raises:
        UserError: if there is neither.
    """
    if strong is not None:
        with torch.no_grad():
            return strong(step.inputs[0])
    views = step.batch.get("views") if isinstance(step.batch, Mapping) else None
    if not isinstance(views, Tensor) or views.ndim < 3 or views.shape[1] < 2:
        raise UserError(
            f"{type(callback).__name__} needs a second view of each image, which medbolt's data modules make of "
            "themselves, but the batch has no 'views'; pass a module as strong that transforms a batch of what the "
            "network is given, or yield dict batches with views (B, 2, ...)."
        )
    return views[:, 1].to(step.logits.device)


def network_logits(callback: ObjectiveCallback, step: TrainingStep, *inputs: Any) -> Tensor:
    """Return the logits of other inputs than the step's, in the form of the step's, (n, ...).

    What the callbacks captured of the step stays as it was.

    Args:
        callback: Whose network to call.
        step: The step.
        inputs: Positional arguments of the network, the first one (n, ...).

    Raises:
        UserError: if the network does not return what the criterion is given.
    """
    network = _network(callback, step.module)
    with _captures_at_rest(step.module):
        logits = network(*inputs)
    shape = (len(inputs[0]), *step.logits.shape[1:])
    if not isinstance(logits, Tensor) or logits.numel() != torch.Size(shape).numel():
        what = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise UserError(
            f"the network '{callback.network}' returned {what} where the criterion gets logits of shape {shape}; name "
            "as network the part of the module that returns logits."
        )
    return logits.reshape(shape)


def network_features(callback: ObjectiveCallback, step: TrainingStep, *inputs: Any) -> Tensor:
    """Return what the layer of ``step.features`` puts out for other inputs of the network, usually (n, D).

    What the callbacks captured of the step stays as it was.

    Args:
        callback: Whose network to call; it has to name ``features``.
        step: The step.
        inputs: Positional arguments of the network.

    Raises:
        UserError: if there is no such network, or a call of it does not pass the layer.
    """
    assert callback.features is not None
    layer: nn.Module = attrgetter(callback.features)(step.module)
    outputs: list[Any] = []
    handle = layer.register_forward_hook(lambda layer, inputs, output: outputs.append(output))
    try:
        with _captures_at_rest(step.module):
            _network(callback, step.module)(*inputs)
    finally:
        handle.remove()
    if not outputs:
        raise UserError(
            f"a call of the network '{callback.network}' does not pass the layer features='{callback.features}' that "
            f"{type(callback).__name__} needs; name a layer inside the network."
        )
    return outputs[-1]


def _network(callback: ObjectiveCallback, module: LightningModule) -> nn.Module:
    if callback.network == "self":
        return module
    try:
        return module.get_submodule(callback.network)
    except AttributeError:
        raise UserError(
            f"{type(module).__name__} has no network '{callback.network}' for {type(callback).__name__} to call; name "
            "the attribute that training_step calls, e.g. network='net'."
        ) from None


@contextmanager
def _captures_at_rest(module: LightningModule) -> Iterator[None]:
    callbacks: list[Any] = module.trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    captures = [c.capture for c in callbacks if isinstance(c, ObjectiveCallback) and c.capture.running]
    for capture in captures:
        capture.running = False
    try:
        yield
    finally:
        for capture in captures:
            capture.running = True

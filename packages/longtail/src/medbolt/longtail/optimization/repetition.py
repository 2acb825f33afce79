"""Run a training step again without anybody noticing: no log, no metric, no statistic, the same random numbers."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn
from torchmetrics import Metric, MetricCollection


class Repetition:
    """The calls of a module's ``training_step`` since the last :meth:`clear`, to be made again.

    Args:
        module: The module in training, whose ``training_step`` is shadowed until :meth:`remove`.

    State, cost: the arguments of the calls, so the batches stay in memory; the state of the generators, some kilobytes
    a call; of each metric of the module an empty copy; while steps are repeated, a copy of the module's buffers.
    """

    def __init__(self, module: LightningModule) -> None:
        self.module = module
        self._calls: list[tuple[tuple[Any, ...], dict[str, Any], tuple[Any, ...]]] = []
        self._is_recording = True
        self._metrics = _stand_ins(module)
        self._own = vars(module).get("training_step")  # of the object, where it is not the class's
        step = module.training_step

        def recorded(*args: Any, **kwargs: Any) -> Any:
            if self._is_recording:
                self._calls.append((args, kwargs, _random_state(module.device)))
            return step(*args, **kwargs)

        module.training_step = recorded

    def __len__(self) -> int:
        """Return how many calls there are to repeat."""
        return len(self._calls)

    def losses(self, trainer: Trainer) -> Iterator[Tensor]:
        """Yield the loss of each call, made again under the trainer's strategy and precision, in order.

        Afterwards buffers, metrics and random generators are as they were before.
        """
        with _unnoticed(self.module, self._metrics):
            self._is_recording = False
            try:
                for args, kwargs, state in self._calls:
                    _set_random_state(self.module.device, state)
                    output: Any = trainer.strategy.training_step(*args, **kwargs)
                    loss = output.get("loss") if isinstance(output, Mapping) else output
                    if loss is not None:  # a step that is skipped
                        yield loss
            finally:
                self._is_recording = True

    def clear(self) -> None:
        """Forget the calls."""
        self._calls.clear()

    def remove(self) -> None:
        """Give the module its ``training_step`` back."""
        self.clear()
        _restore(self.module, "training_step", self._own)


@contextmanager
def _unnoticed(module: LightningModule, metrics: list[tuple[nn.Module, str, nn.Module]]) -> Iterator[None]:
    random_state = _random_state(module.device)
    # by owner and name, for a buffer may be changed in place or replaced
    buffers = [
        (layer, name, buffer, buffer.clone())
        for layer in module.modules()
        for name, buffer in layer._buffers.items()
        if buffer is not None
    ]
    originals = [owner._modules[name] for owner, name, _ in metrics]
    for owner, name, stand_in in metrics:
        owner._modules[name] = stand_in
    shadowed = {name: vars(module).get(name) for name in ("log", "log_dict")}
    for name in shadowed:
        setattr(module, name, _ignore)
    try:
        yield
    finally:
        for name, own in shadowed.items():
            _restore(module, name, own)
        for (owner, name, stand_in), original in zip(metrics, originals, strict=True):
            owner._modules[name] = original
            stand_in.reset()  # pyright: ignore[reportCallIssue]
        with torch.no_grad():
            for layer, name, buffer, value in buffers:
                layer._buffers[name] = buffer.copy_(value)
        _set_random_state(module.device, random_state)


def _restore(module: nn.Module, name: str, own: Any) -> None:
    if own is None:
        delattr(module, name)
    else:
        setattr(module, name, own)


def _ignore(*args: Any, **kwargs: Any) -> None:
    """Log nothing."""


def _stand_ins(module: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    """Return for each metric of a module where it is, and an empty copy."""
    found: list[tuple[nn.Module, str, nn.Module]] = []
    for name, child in module.named_children():
        if isinstance(child, Metric | MetricCollection):
            copied = child.clone()
            copied.reset()
            found.append((module, name, copied))
        else:
            found += _stand_ins(child)
    return found


def _random_state(device: torch.device) -> tuple[Any, ...]:
    accelerator = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    return torch.get_rng_state(), accelerator, np.random.get_state(), random.getstate()  # noqa: NPY002


def _set_random_state(device: torch.device, state: tuple[Any, ...]) -> None:
    cpu, accelerator, numpy, python = state
    torch.set_rng_state(cpu)
    if accelerator is not None:
        torch.cuda.set_rng_state(accelerator, device)
    np.random.set_state(numpy)  # noqa: NPY002
    random.setstate(python)

"""The base of what changes a trained network's logits: where they are seen, when they are changed, when it is tuned."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from medbolt.core.errors import UserError
from medbolt.core.objective.compiled import forget_traces
from medbolt.longtail.losses.inputs import precise
from medbolt.longtail.posthoc.changers import aggregated, changers
from medbolt.longtail.posthoc.fingerprint import fingerprint
from medbolt.longtail.posthoc.split import Collected, collect, find_network


class PosthocCallback(Callback):
    """Change the logits of any LightningModule's network in ``validate``, ``test`` and ``predict``, not in ``fit``.

    A forward hook on the network gives the module other logits than the network put out, while a batch of an evaluation
    runs. Inside ``fit`` the module sees the network's own logits, in validation too. What is tuned is tuned on the
    validation split, the first of several validation loaders: in ``fit`` after each validation, so that a checkpoint
    saved before training goes on holds what belongs to its weights; and before an evaluation of weights for which
    nothing was tuned, those that trained on since and another module's among them. Several of them act in the order of
    the callbacks, and each is tuned on what the ones before it give.

    Before an evaluation the network is called by itself, so it must take the batch's image as it is: put normalisation
    and the like into the transform or the network, not into the module around it. Where
    :class:`~medbolt.longtail.EvaluationHead` or :class:`~medbolt.longtail.ExpertAggregation` change the network, which
    they do in evaluations only, what was tuned in ``fit`` is of no use: each evaluation tunes anew, after they acted,
    with the experts' weights of the first data loader. They come before in the callbacks.

    Subclasses implement :meth:`adjusted` and, where something is free, :meth:`tune`.

    Args:
        network: Attribute of the module (dotted) whose output are the logits, (B, C), or (B,) or (B, 1) of two classes;
            ``"self"`` for the module itself.
    """

    def __init__(self, network: str = "model") -> None:
        self.network = network
        self._is_tuned = False
        self._tuned_for: int | None = None  # fingerprint of the network; None if a state that was loaded tells
        self._restored = False  # from the checkpoint of this run
        self._active = False
        self._collected: Collected | None = None
        self._handle: RemovableHandle | None = None

    @abstractmethod
    def adjusted(self, logits: Tensor) -> Tensor:
        """Return other logits, (B, C) for (B, C) float32 or float64."""

    def tune(self, logits: Tensor, target: Tensor) -> dict[str, float]:
        """Choose what is free by (N, C) float64 logits and (N,) int64 classes; return what to log."""
        return {}

    @property
    def needs_tuning(self) -> bool:
        """Whether anything is to be tuned."""
        return True

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Watch the network."""
        self._remove()
        network = find_network(pl_module, self.network, self)
        if getattr(pl_module, "task", None) == "multilabel":
            raise UserError(
                f"{type(self).__name__} is made for one class a sample, but the task is multilabel; leave it out."
            )
        if self.needs_tuning:
            changers(trainer, self, self.network)
        self._restored = False
        if stage == "fit":
            self._is_tuned = False
        self._handle = network.register_forward_hook(self._see)
        forget_traces(pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Forget what was tuned for the weights before."""
        self._is_tuned = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to collect logits inside ``fit``; else tune what is not."""
        if trainer.state.fn == "fit":
            self._collected = None if trainer.sanity_checking else Collected(self)
        else:
            self._prepare(trainer, pl_module)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tune what is not."""
        self._prepare(trainer, pl_module)

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tune what is not."""
        self._prepare(trainer, pl_module)

    def on_validation_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to see logits."""
        if self._collected is not None and dataloader_idx == 0:
            self._collected.begin(batch)
        self._active = trainer.state.fn != "fit"

    def on_test_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to change logits."""
        self._active = True

    def on_predict_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Begin to change logits."""
        self._active = True

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop."""
        self._active = False
        if self._collected is not None:
            self._collected.target = None

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop."""
        self._active = False

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Stop."""
        self._active = False

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Tune on this validation, inside ``fit``."""
        if self._collected is None:
            return
        collected, self._collected = self._collected, None
        for name, value in self._tune(trainer, *collected.gathered()).items():
            pl_module.log(f"val/posthoc_{name}", value, sync_dist=True)  # equal on all processes already
        if self.needs_tuning:
            self._tuned_for = fingerprint(find_network(pl_module, self.network, self))

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the network alone."""
        self._remove()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave the network alone."""
        self._remove()

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return self._generate_state_key(network=self.network)

    def state_dict(self) -> dict[str, Any]:
        """Return whether it was tuned; subclasses add what."""
        return {"tuned": self._is_tuned}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore it."""
        self._restored, self._is_tuned, self._tuned_for = True, state_dict["tuned"], None

    def _prepare(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self.needs_tuning:
            return
        network, changing = find_network(pl_module, self.network, self), changers(trainer, self, self.network)
        found = fingerprint(network)
        is_other = self._tuned_for not in (None, found) or (trainer.ckpt_path is not None and not self._restored)
        if changing or trainer.strategy.reduce_boolean_decision(is_other, all=False):
            self._is_tuned = False  # what is tuned belongs to another network
        self._tuned_for = found
        if self._is_tuned:
            return
        self._collected = Collected(self)
        with aggregated(pl_module, changing):
            rows = collect(trainer, pl_module, network, "val", self._collected, self._watching)
        self._tune(trainer, *rows)
        self._is_tuned = not changing  # which leave the network as it was before

    def _tune(self, trainer: Trainer, logits: Tensor, target: Tensor) -> dict[str, float]:
        callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
        for callback in callbacks[: callbacks.index(self)]:
            if isinstance(callback, PosthocCallback) and callback.network == self.network:
                logits = callback.adjusted(logits)
        with torch.inference_mode(False), torch.enable_grad():
            values = self.tune(logits.clone(), target)
        self._is_tuned = True
        return values

    @contextmanager
    def _watching(self) -> Iterator[None]:
        try:
            yield
        finally:
            self._collected = None

    def _see(self, network: nn.Module, inputs: tuple[Any, ...], output: Any) -> Tensor | None:
        if self._collected is None and not self._active:
            return None
        if not isinstance(output, Tensor) or output.ndim > 2:
            shape = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
            raise UserError(
                f"{type(self).__name__} needs logits (B, C) of '{self.network}', but it gives {shape}; set network to "
                "the attribute that gives logits."
            )
        single = output.ndim == 1 or output.shape[1] == 1
        logits = precise(output)
        if single:  # one logit is that of the second of two classes, against 0
            logits = torch.stack([torch.zeros_like(logits.flatten()), logits.flatten()], 1)
        if self._collected is not None:
            self._collected.add(logits)
        if not self._active:
            return None
        changed = self.adjusted(logits)
        return (changed[:, 1] - changed[:, 0]).view_as(output) if single else changed

    def _remove(self) -> None:
        self._active, self._collected = False, None
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

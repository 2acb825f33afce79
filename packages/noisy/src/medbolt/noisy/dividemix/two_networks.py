"""What tasks share that divide the samples for two networks and learn the unlabelled ones by MixMatch."""

from collections.abc import Mapping
from typing import Any, Literal, Protocol

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from medbolt.core.errors import UserError, listed
from medbolt.core.memory import SampleMemory
from medbolt.core.randomness import derive_seed
from medbolt.core.tasks.classification import ClassificationTask
from medbolt.core.tasks.log_loss import log_loss
from medbolt.noisy.dividemix.mixmatch import mixed, predictions, ramped, targets
from medbolt.noisy.dividemix.semi_supervised_loss import SemiSupervisedLoss
from medbolt.noisy.dividemix.two_views import TwoViews
from medbolt.noisy.losses.targets import log_probability
from medbolt.noisy.selection.peer import PeerNetwork
from medbolt.noisy.selection.selection import Selection

_NEEDED = ("image", "views", "target", "index")


class Division(Protocol):
    """Decides which samples each network takes for labelled right.

    ``memory`` has two columns a sample, what network 1 says and what network 2 says: ``clean``, how probable the label
    is, and ``labelled``.
    """

    memory: SampleMemory

    def prepare(self, data: Any) -> None:
        """Make room for a data module's training samples."""
        ...

    def update(self, trainer: Trainer, module: LightningModule, networks: Any, classes: int) -> None:
        """Decide anew; all processes call together."""
        ...


class TwoNetworkTask(ClassificationTask):
    """Train two networks at once, after a warm-up each on the samples that a division labels for it.

    Subclasses set ``split`` and ``semi_supervised`` and document the rest; see :class:`~medbolt.noisy.DivideMix` for
    how batches reach the step. They may override :meth:`divide_views` and :meth:`further_loss`.

    Args:
        model: Network 1.
        num_classes: Number of classes.
        warmup_epochs: Epochs of training with the criterion.
        unlabelled_weight: Weight of the unlabelled samples.
        rampup_epochs: Epochs after the warm-up in which it is reached.
        temperature: Of sharpening.
        alpha: Of the mixtures.
        prior: What the mean prediction is pulled to.
        confidence_penalty: Weight of the negative entropy in the warm-up.
        peer: Network 2, or ``None`` to have it made.
        reinitialize: Part of the copy to draw anew.
        seed: Of the copy and the mixtures.
        task: See :class:`~medbolt.core.ClassificationTask`, as for what follows.
        criterion: Of warm-up, validation and test.
        optimizer: Makes the optimizer.
        scheduler: Makes the scheduler.
        scheduler_interval: When it steps.
    """

    split: Division
    semi_supervised: SemiSupervisedLoss

    def __init__(
        self,
        model: nn.Module,
        num_classes: int,
        warmup_epochs: int,
        unlabelled_weight: float,
        rampup_epochs: int,
        temperature: float,
        alpha: float,
        prior: Literal["uniform", "labels"] | None,
        confidence_penalty: float,
        peer: nn.Module | None,
        reinitialize: str,
        seed: int,
        task: Literal["multiclass", "ordinal"],
        criterion: nn.Module | None,
        optimizer: OptimizerCallable,
        scheduler: LRSchedulerCallable | None,
        scheduler_interval: Literal["epoch", "step"],
    ) -> None:
        given, peer = peer, None  # Lightning puts arguments into checkpoints, where a network does not belong
        super().__init__(model, num_classes, task, criterion, optimizer, scheduler, scheduler_interval)
        if min(warmup_epochs, unlabelled_weight, rampup_epochs, confidence_penalty) < 0:
            raise ValueError(
                "warmup_epochs, unlabelled_weight, rampup_epochs and confidence_penalty must not be negative"
            )
        if temperature <= 0 or alpha <= 0:
            raise ValueError(f"temperature and alpha must be positive, got {temperature} and {alpha}")
        if task not in ("multiclass", "ordinal"):
            raise ValueError(f"task must be 'multiclass' or 'ordinal', got {task!r}")
        if prior not in ("uniform", "labels", None):
            raise ValueError(f"prior must be 'uniform', 'labels' or None, got {prior!r}")
        self.warmup_epochs, self.rampup_epochs, self.unlabelled_weight = warmup_epochs, rampup_epochs, unlabelled_weight
        self.temperature, self.alpha, self.confidence_penalty, self.seed = temperature, alpha, confidence_penalty, seed
        self.prior = prior
        self.peer = PeerNetwork(given, reinitialize, seed).make(self, "model")
        self.selection: Selection | None = None  # what network 1 learns from as labelled
        self._prior: Tensor | None = None
        self._epoch = -1  # the last that was begun

    def forward(self, image: Tensor) -> Tensor:
        """Return the mean of both networks' logits, (B, C)."""
        return (self.model(image) + self.peer(image)) / 2

    def configure_callbacks(self) -> list[Callback]:
        """Have two views made of each image."""
        return [TwoViews()]

    def setup(self, stage: str) -> None:
        """Make room for what is remembered of every sample."""
        super().setup(stage)
        if stage != "fit":
            return
        data: Any = self.trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        earlier = self.split.memory
        self.split.prepare(data)
        same = (len(earlier), earlier.fingerprint) == (len(self.split.memory), self.split.memory.fingerprint)
        if self.trainer.current_epoch and same and earlier.fields:
            self.split.memory = earlier  # a fit that goes on
        self._epoch = -1
        self._prior = None
        if self.prior is not None:
            counts = getattr(data, "class_counts", None) if self.prior == "labels" else [1] * self.num_classes
            if counts is None:
                raise UserError(
                    f"{type(self).__name__} with prior='labels' needs the frequencies of the training labels, but the "
                    "data have no class_counts; take prior='uniform', or one of medbolt's data modules."
                )
            self._prior = torch.tensor(counts, dtype=torch.float32) / sum(counts)

    def on_train_start(self) -> None:
        """Bring what is remembered to the networks' device."""
        super().on_train_start()
        self.split.memory.to(self.device)

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Divide the samples before the first batch of an epoch: here, as a resumed run has no start of the epoch."""
        absent = [name for name in _NEEDED if not isinstance(batch, Mapping) or name not in batch]
        if absent:
            raise UserError(
                f"{type(self).__name__} remembers each sample and compares views of its image, but the batches have no "
                f"{listed(absent)}; use one of medbolt's data modules, with MultiView as its train_transform."
            )
        if self._epoch != self.current_epoch:
            self._epoch = self.current_epoch
            if self.current_epoch >= self.warmup_epochs:
                self.split.update(self.trainer, self, (self.model, self.peer), self.num_classes)

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        """Return the sum of both networks' losses."""
        step = self._warm_up if self.current_epoch < self.warmup_epochs else self._mix_match
        loss = step(batch, batch_idx)
        log_loss(self, loss, batch)
        return loss

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what is remembered of the samples; it is the same on every process."""
        checkpoint["divided_samples"] = {"epoch": self._epoch, "memory": self.split.memory.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore it, if training goes on."""
        if self._trainer is not None and self._trainer.state.fn == "fit" and "divided_samples" in checkpoint:
            self._epoch = checkpoint["divided_samples"]["epoch"]
            self.split.memory.load_state_dict(checkpoint["divided_samples"]["memory"])

    def _warm_up(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        loss = torch.zeros((), device=self.device)
        for k, network in enumerate((self.model, self.peer)):
            logits = network(batch["views"][:, k])
            loss = loss + self._loss(logits, batch["target"])
            if self.confidence_penalty:
                log_p = log_probability(logits)
                loss = loss + self.confidence_penalty * (log_p.exp() * log_p).sum(1).mean()
        self.selection = Selection(batch["index"], torch.ones_like(batch["index"], dtype=torch.bool))
        return loss

    def divide_views(self, views: Tensor) -> tuple[Tensor, Tensor]:
        """Return the views to guess labels from and those to learn from, of (B, V, ...) each (B, ., ...)."""
        return views, views

    def further_loss(self, k: int, views: Tensor, labelled: Tensor) -> Tensor:
        """Return what a network's loss has besides, ().

        Args:
            k: Which network, 0 or 1.
            views: (B, V, ...) images to learn from.
            labelled: (B,) bool, which samples count as labelled for it.
        """
        return torch.zeros((), device=views.device)

    def _mix_match(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        index, networks = batch["index"], (self.model, self.peer)
        guessed, views = self.divide_views(batch["views"])
        own = predictions(networks, guessed)
        clean, labelled = (self.split.memory.read(index, name).to(views.device) for name in ("clean", "labelled"))
        counts = torch.stack([labelled.sum(0), (~labelled).sum(0)], 1).float() * views.shape[1]
        counts = self.trainer.strategy.reduce(counts, reduce_op="mean")
        generator = np.random.default_rng(derive_seed(self.seed, self.current_epoch, batch_idx, self.global_rank))
        now = self.current_epoch + batch_idx / self.trainer.num_training_batches
        weight = ramped(self.unlabelled_weight, now, self.warmup_epochs, self.rampup_epochs)
        prior = None if self._prior is None else self._prior.to(views.device)
        loss = torch.zeros((), device=views.device)
        for k, network in enumerate(networks):
            other = 1 - k  # each network trusts the other one's verdict, so that neither confirms its own errors
            target = targets(
                own[k], own.mean(0), batch["target"], clean[:, other], labelled[:, other], self.temperature
            )
            if k == 0:
                self.selection = Selection(index, labelled[:, other], target.argmax(1))
            repeated, are_labelled = (t.repeat_interleave(views.shape[1], 0) for t in (target, labelled[:, other]))
            images, mixture = mixed(views.flatten(0, 1), repeated, self.alpha, generator)
            loss = loss + self.semi_supervised(network(images), mixture, are_labelled, counts[other], weight, prior)
            loss = loss + self.further_loss(k, views, labelled[:, other])
        self.log("train/labelled", labelled.float().mean(), on_step=False, on_epoch=True, batch_size=len(index))
        return loss

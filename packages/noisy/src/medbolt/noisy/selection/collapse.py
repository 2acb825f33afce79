"""A warning when a network predicts one class only, or a method no longer learns from a class."""

from collections.abc import Mapping
from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medbolt.core.errors import listed
from medbolt.noisy.selection.labels import Labels, of_each_class, reduced, training_labels
from medbolt.noisy.selection.selection import selections


class CollapseMonitor(Callback):
    """Warn when nearly all validation predictions are one class, or a selection leaves a class out for an epoch.

    A class is left out if samples of it were drawn in the epoch, but none was selected. Both are how learning with
    noisy labels fails on unbalanced data while its accuracy looks well. Each is said once a fit.
    ``val/dominant_share`` is logged each epoch: the share of the class predicted most.

    Predictions are read from the outputs of ``validation_step``, a dict with ``"probability"``: (B, C), or (B,) and
    (B, 1) for two classes, as :class:`~medbolt.core.ClassificationTask` returns; other outputs, and those of a
    multilabel task, are passed over. Selections are those of callbacks with a :class:`~medbolt.noisy.Selection`, on
    data modules of medbolt.

    Args:
        threshold: Share of one class above which to warn, in (0, 1). It should be above that of the largest class.

    Raises:
        ValueError: if it is not.

    State, cost: a count a class.

    Source: ours; one of LNMBench's logged runs drops four of five classes at 99 % precision of the selection.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[CollapseMonitor(threshold=0.95)], logger=False)
    """

    def __init__(self, threshold: float = 0.95) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold must be in (0, 1), got {threshold}")
        self.threshold = threshold
        self._labels: Labels | None = None
        self._predicted: list[Tensor] = []
        self._counts: Tensor | None = None
        self._said: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look up the training labels."""
        if stage == "fit":
            self._labels = training_labels(trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
            self._counts, self._said = None, set()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the labels to the module's device."""
        if self._labels is not None:
            self._labels = self._labels.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count the samples of each class that were selected, and those that were drawn."""
        if self._labels is None:
            return
        for selection, index in selections(trainer):
            given, num_classes = self._labels.given[index], len(self._labels.class_names)
            labels = given if selection.target is None else selection.target
            chosen = ((selection.kept, labels), (torch.ones_like(selection.kept), given))
            counts = torch.stack([of_each_class(among, each, num_classes) for among, each in chosen])
            self._counts = counts if self._counts is None else self._counts + counts

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of classes that samples were drawn of, but none selected."""
        if self._labels is None or self._counts is None:  # alike on all processes
            return
        (kept, drawn), self._counts = reduced(trainer, self._counts, "sum").tolist(), None
        missing = [name for name, k, n in zip(self._labels.class_names, kept, drawn, strict=True) if n > 0 and k == 0]
        if missing:
            self._say(
                "selection",
                f"in epoch {trainer.current_epoch} no training sample of {listed(missing)} was selected, so the "
                "network unlearns it; lower the forget rate, or balance the classes.",
            )

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        self._predicted = []

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count the predictions of each class."""
        if trainer.sanity_checking or not isinstance(outputs, Mapping) or "probability" not in outputs:
            return
        if getattr(pl_module, "task", None) != "multilabel":
            self._predicted.append(_counts(outputs["probability"].detach()))

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the share of the class predicted most, and warn if it is nearly all."""
        classes = torch.tensor(len(self._predicted[0]) if self._predicted else 0, device=pl_module.device)
        num_classes = int(reduced(trainer, classes, "max"))  # a process may have had no validation batch
        if num_classes == 0:
            return
        counts = torch.zeros(num_classes, dtype=torch.int64, device=pl_module.device)
        for predicted in self._predicted:
            counts += predicted.to(counts)
        counts = reduced(trainer, counts, "sum")
        share = float(counts.max()) / float(counts.sum())
        pl_module.log("val/dominant_share", share, sync_dist=True)  # equal on all processes already
        if share > self.threshold:
            names = self._labels.class_names if self._labels is not None else []
            dominant = int(counts.argmax())
            self._say(
                "prediction",
                f"in epoch {trainer.current_epoch} {share:.1%} of the validation samples were predicted to be "
                f"'{names[dominant] if len(names) == num_classes else dominant}': training may have collapsed; lower "
                "the learning rate or the forget rate, or balance the classes.",
            )

    def _say(self, what: str, text: str) -> None:
        if what not in self._said:
            self._said.add(what)
            rank_zero_warn(text)


def _counts(probability: Tensor) -> Tensor:
    if probability.ndim == 1 or probability.shape[1] == 1:
        positive = probability.flatten() > 0.5
        return torch.stack([(~positive).sum(), positive.sum()])
    predicted = probability.argmax(1)
    return of_each_class(torch.ones_like(predicted, dtype=torch.bool), predicted, probability.shape[1])

"""How clean the samples are that a method selects, where the clean labels are known."""

from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medbolt.noisy.selection.labels import Labels, of_each_class, reduced, training_labels
from medbolt.noisy.selection.selection import Selection, selections


class SelectionQuality(Callback):
    r"""Log each epoch how many of the selected training samples are labelled right, and how many of those are selected.

    .. math::
        \text{precision} = \frac{|S \cap C|}{|S|}, \qquad \text{recall} = \frac{|S \cap C|}{|C|}

    S are the samples that a method lets the module's network learn from with their given label, C those whose given
    label is the clean one. They are counted batch by batch, for every callback in the trainer that has a
    :class:`~medbolt.noisy.Selection`, together. Logged are

    - ``lnl/select/precision`` (LNMBench's clean ratio) and ``lnl/select/recall`` (its coverage ratio);
    - ``lnl/select/recall_class_<name>``, by clean class: a method may look clean while it drops a class; and
      ``lnl/select/precision_class_<name>``, by label;
    - ``lnl/correct/precision``, where a method corrects labels: the share of labels it changed and learns from that are
      the clean ones; and ``lnl/correct/coverage``, the share of wrong labels that it changed, to whatever class.

    The data module is :class:`~medbolt.noisy.NoisyLabels`, or wraps it; without clean labels there is one warning and
    nothing is logged.

    State, cost: seven counts a class, of the running epoch; after a resume in mid-epoch, of the rest of it.

    Source: LNMBench, arXiv 2512.09315.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> from medbolt.noisy import CoTeaching
        >>> trainer = Trainer(callbacks=[CoTeaching(forget_rate=0.4), SelectionQuality()], logger=False)
    """

    def __init__(self) -> None:
        self._labels: Labels | None = None
        self._counts: Tensor | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look up the clean labels."""
        if stage != "fit":
            return
        labels = training_labels(trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
        if labels is None or labels.clean is None:
            rank_zero_warn(
                "SelectionQuality stays off, as the data module tells no clean training labels; only data whose noise "
                "medbolt.noisy.NoisyLabels put in have them."
            )
            labels = None
        self._labels, self._counts = labels, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the labels to the module's device."""
        if self._labels is not None:
            self._labels = self._labels.to(pl_module.device)
            self._counts = self._no_counts()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count what was selected."""
        if self._labels is not None and self._counts is not None:
            for selection, index in selections(trainer):
                self._counts += _counted(self._labels, selection, index)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's shares, of all processes together."""
        if self._labels is None or self._counts is None:
            return
        counts = reduced(trainer, self._counts, "sum")
        self._counts = self._no_counts()
        clean, kept_clean, kept, corrected, corrected_right, wrong, corrected_wrong = counts.double().cpu()
        shares = {
            "lnl/select/precision": (kept_clean.sum(), kept.sum()),
            "lnl/select/recall": (kept_clean.sum(), clean.sum()),
            "lnl/correct/precision": (corrected_right.sum(), corrected.sum()),
            "lnl/correct/coverage": (corrected_wrong.sum(), wrong.sum() * corrected.any()),
        }
        for c, name in enumerate(self._labels.class_names):
            shares[f"lnl/select/recall_class_{name}"] = (kept_clean[c], clean[c])
            shares[f"lnl/select/precision_class_{name}"] = (kept_clean[c], kept[c])
        values = {name: float(part / whole) for name, (part, whole) in shares.items() if whole > 0}
        pl_module.log_dict(values, sync_dist=True)  # equal on all processes already; the flag spares a warning

    def _no_counts(self) -> Tensor:
        assert self._labels is not None
        return torch.zeros(7, len(self._labels.class_names), dtype=torch.int64, device=self._labels.given.device)


def _counted(labels: Labels, selection: Selection, index: Tensor) -> Tensor:
    """Count by class: clean, clean and kept, kept, corrected, so to the clean label, wrong, wrong and corrected."""
    assert labels.clean is not None
    given, clean, kept = labels.given[index], labels.clean[index], selection.kept
    target = given if selection.target is None else selection.target
    is_clean, corrected = given == clean, kept & (target != given)
    kept = kept & ~corrected
    counted = [
        (is_clean, clean),
        (is_clean & kept, clean),
        (kept, given),
        (corrected, target),
        (corrected & (target == clean), target),
        (~is_clean, clean),
        (corrected & ~is_clean, clean),
    ]
    return torch.stack([of_each_class(chosen, by, len(labels.class_names)) for chosen, by in counted])

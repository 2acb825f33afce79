"""What the network makes of mislabelled training samples as it learns: the truth, or the label by heart."""

from typing import Any

import torch
from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.selection.labels import Labels, reduced, training_labels


class MemorizationCurves(ObjectiveCallback):
    """Log each epoch how mislabelled training samples are predicted, where the clean labels are known.

    - ``lnl/mem/correct``: share of the mislabelled samples predicted as their clean label;
    - ``lnl/mem/memorised``: share predicted as the given, wrong label;
    - ``lnl/mem/other``: the rest of them;
    - ``lnl/mem/fitted``: share of the samples labelled right that are predicted so.

    Robust training keeps the second low while the last rises. Predictions are those of the training batches, dropout
    and augmentation included, before each step; beside MixUp and its kin those of the mixture that a sample is the
    first part of. The loss is passed through as it is.

    The data module is :class:`~medbolt.noisy.NoisyLabels`, or wraps it; without clean labels there is one warning and
    nothing is logged.

    Args:
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes.

    State, cost: five counts, of the running epoch; after a resume in mid-epoch, of the rest of it.

    Source: the curves of Liu et al., arXiv 2007.00151.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[MemorizationCurves()], logger=False)
    """

    def __init__(self, criterion: str = "criterion", network: str = "model") -> None:
        super().__init__(criterion, network)
        self._labels: Labels | None = None
        self._counts: Tensor | None = None
        self._is_counted = False

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses as they are; count predictions."""
        # methods further out may ask again, with a peer network's logits
        if self._labels is not None and not self._is_counted:
            self._is_counted = True
            counts = _counted(self._labels, step)
            self._counts = counts if self._counts is None else self._counts + counts
        return step.loss()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; look up the clean labels."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        labels = training_labels(trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
        if labels is None or labels.clean is None:
            rank_zero_warn(
                "MemorizationCurves stays off, as the data module tells no clean training labels; only data whose "
                "noise medbolt.noisy.NoisyLabels put in have them."
            )
            labels = None
        self._labels, self._counts = labels, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Bring the labels to the module's device."""
        super().on_train_start(trainer, pl_module)
        if self._labels is not None:
            self._labels = self._labels.to(pl_module.device)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._is_counted = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the epoch's shares, of all processes together."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._counts is None:
            return
        counts = reduced(trainer, self._counts, "sum")
        self._counts = None
        correct, memorised, other, fitted, clean = counts.double().cpu()
        wrong = correct + memorised + other
        shares = {"correct": correct, "memorised": memorised, "other": other} if wrong else {}
        values = {f"lnl/mem/{name}": float(count / wrong) for name, count in shares.items()}
        if clean:
            values["lnl/mem/fitted"] = float(fitted / clean)
        pl_module.log_dict(values, sync_dist=True)  # equal on all processes already; the flag spares a warning


def _counted(labels: Labels, step: TrainingStep) -> Tensor:
    """Count mislabelled samples predicted right, as labelled, and else; samples labelled right, fitted and all."""
    assert labels.clean is not None
    given, clean = labels.given[step.index], labels.clean[step.index]
    logits = step.logits.detach()
    one_logit = logits.ndim == 1 or logits.shape[1] == 1
    predicted = (logits.flatten() > 0).long() if one_logit else logits.argmax(1)
    wrong = given != clean
    return torch.stack(
        [
            (wrong & (predicted == clean)).sum(),
            (wrong & (predicted == given)).sum(),
            (wrong & (predicted != clean) & (predicted != given)).sum(),
            (~wrong & (predicted == given)).sum(),
            (~wrong).sum(),
        ]
    )

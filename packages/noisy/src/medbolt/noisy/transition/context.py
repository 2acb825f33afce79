"""What methods with a transition matrix ask of logits and data: the right classes, and what the true matrix is."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.noisy.noise.report import noise_report
from medbolt.noisy.selection.labels import training_labels
from medbolt.noisy.transition.anchor_points import transition_error


def require_classes(method: str, logits: Tensor, num_classes: int) -> None:
    """Refuse logits that are not (B, K).

    Raises:
        UserError: naming both shapes.
    """
    if logits.ndim != 2 or logits.shape[1] != num_classes:
        raise UserError(
            f"{method} has a matrix of {num_classes} classes and predictions of shape {tuple(logits.shape)}; it needs "
            f"({len(logits)}, {num_classes}): train with one logit a class, and set num_classes to their number."
        )


def log_transition_error(transition: Tensor, trainer: Trainer, module: LightningModule) -> None:
    """Log ``lnl/T_error``, the error against the matrix of the noise, where the data know the clean labels."""
    labels = training_labels(trainer.datamodule)  # pyright: ignore[reportAttributeAccessIssue]
    if labels is None or labels.clean is None:
        return
    known = (labels.given >= 0) & (labels.clean >= 0)
    truth = noise_report(labels.clean[known], labels.given[known], len(transition)).transition
    # equal on all processes already; the flag spares a warning
    module.log("lnl/T_error", transition_error(transition, truth), batch_size=1, sync_dist=True)

"""Refuse targets of several findings a sample, for methods that take a softmax over the classes."""

from lightning.pytorch import LightningModule

from medbolt.core.errors import UserError
from medbolt.core.objective.step import TrainingStep

_TOLERANCE = 1e-2  # of a row's sum, which bfloat16 rounds


def require_one_class(step: TrainingStep, why: str) -> None:
    """Refuse a batch whose samples have not one class each: multi-label targets, masks.

    Rows of probabilities, as MixUp makes them, are fine. It waits for an accelerator where targets are (B, C).

    Args:
        step: The training step.
        why: What needs one class and what to do, the end of the sentence.

    Raises:
        UserError: naming both shapes.
    """
    logits, target = step.logits, step.target
    several = target.ndim == 2 and target.shape[1] > 1
    if several and getattr(step.module, "task", None) != "multilabel":
        several = bool(((target.float().sum(1) - 1).abs() > _TOLERANCE).any())
    if several or logits.ndim > 2:
        raise UserError(
            f"{type(step.module).__name__} predicts logits {tuple(logits.shape)} for targets {tuple(target.shape)}; "
            f"{why}"
        )


class OneClassTargets:
    """Look at a module's first batch only, so that an accelerator is waited for once.

    Args:
        asker: Name of the method that needs one class a sample.
    """

    def __init__(self, asker: str) -> None:
        self.asker = asker
        self._checked: LightningModule | None = None

    def require(self, step: TrainingStep) -> None:
        """Refuse a first batch whose samples have not one class each.

        Raises:
            UserError: naming both shapes.
        """
        if self._checked is step.module:
            return
        require_one_class(
            step,
            f"{self.asker} compares probabilities of classes, of which each sample must have one; where a sample may "
            "have several findings, take a method that only ranks losses, such as CoTeaching.",
        )
        self._checked = step.module

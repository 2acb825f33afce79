"""Whether targets are of the kind a task is trained on."""

from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.core.metrics.defaults import TaskKind


def check_targets(task: TaskKind, targets: Tensor) -> None:
    """Refuse targets that a task of this kind cannot learn from, or would take for something else.

    Args:
        task: The kind of task.
        targets: (N,) classes, or (N, C) findings or probabilities of classes.

    Raises:
        UserError: if a multi-label task gets one class a sample, a binary one several values, or the others rows that
            are no distribution over classes (which cross entropy would take for one).

    Example:
        >>> check_targets("multilabel", torch.tensor([0, 2, 1]))
        Traceback (most recent call last):
        medbolt.core.errors.UserError: task 'multilabel' needs ...
    """
    if targets.ndim == 1:
        if task == "multilabel":
            raise UserError(
                "task 'multilabel' needs several findings a sample, but the data have one class a sample; set task to "
                "'multiclass', 'ordinal' or 'binary'."
            )
    elif task == "binary" or (task != "multilabel" and (targets.sum(1) - 1).abs().max() > 1e-3):
        raise UserError(
            f"task '{task}' needs one class a sample, but the data have several findings a sample; set task to "
            "'multilabel'."
        )

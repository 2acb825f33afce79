"""What the trainer, the module and the data module know about a prediction table."""

from datetime import UTC, datetime
from typing import Any

import pandas as pd
from lightning.pytorch import LightningModule, Trainer

from medbolt.core.errors import UserError


def class_names_of(data: Any, classes: int) -> list[str]:
    """Return the data module's class names, or the class indices if it has none."""
    names = getattr(data, "class_names", None)
    if names is None:
        return [str(k) for k in range(classes)]
    if len(names) != classes:
        raise UserError(
            f"{type(data).__name__} names {len(names)} classes but the model gives {classes} probabilities; make them "
            "agree."
        )
    return list(names)


def domain_names_of(data: Any, frame: pd.DataFrame) -> list[str]:
    """Return the data module's domain names, or the domain indices if it has none."""
    names = getattr(data, "domain_names", None)
    if names is None and "domain" in frame.columns:
        return [str(k) for k in range(int(frame["domain"].max()) + 1)]
    return list(names or ())


def task_of(pl_module: LightningModule) -> str | None:
    """Return which of the classification tasks the module says it does."""
    task = getattr(pl_module, "task", None)
    return task if task in ("multiclass", "ordinal", "binary", "multilabel") else None


def run_of(trainer: Trainer, pl_module: LightningModule) -> dict[str, object]:
    """Return when, by what and from which checkpoint the table was made."""
    return {
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "module": type(pl_module).__name__,
        "task": task_of(pl_module),
        "checkpoint": None if trainer.ckpt_path is None else str(trainer.ckpt_path),
    }

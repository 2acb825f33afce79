"""What a report says of a run's configuration."""

from typing import Any

import lightning
import torch
from lightning.pytorch import LightningModule, Trainer


def run_summary(trainer: Trainer, module: LightningModule) -> dict[str, str]:
    """Return the facts of a run that a reader needs to place its numbers, by name; what is not known is left out.

    Args:
        trainer: The trainer.
        module: The module it trained or tested.

    Returns:
        Text by name, in reading order.
    """
    data, checkpoint = getattr(trainer, "datamodule", None), trainer.ckpt_path
    network: Any = getattr(module, "model", None)
    facts = {
        "module": type(module).__name__,
        "network": None if network is None else getattr(network, "name", None) or type(network).__name__,
        "parameters": f"{sum(p.numel() for p in module.parameters()):,}",
        "criterion": _class_name(getattr(module, "criterion", None)),
        "data": _class_name(data),
        "batch size": getattr(data, "batch_size", None),
        "epochs": trainer.current_epoch or None,
        "processes": trainer.world_size,
        "precision": trainer.precision,
        "checkpoint": checkpoint,
        "versions": f"torch {torch.__version__}, lightning {lightning.__version__}",
    }
    return {name: str(fact) for name, fact in facts.items() if fact is not None}


def _class_name(thing: object) -> str | None:
    return None if thing is None else type(thing).__name__

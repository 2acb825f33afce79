"""How many classes there are, for methods that keep something of each class."""

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from medbolt.core.errors import UserError


def class_count(callback: Callback, given: int | None, trainer: Trainer, module: LightningModule) -> int:
    """Return the number of classes: as given, or as the data module or the module says.

    Args:
        callback: Who asks, for the message.
        given: Its ``num_classes``.
        trainer: The trainer, whose data module may have ``num_classes``.
        module: The module, which may have it too.

    Raises:
        UserError: if nobody says.
    """
    data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
    for count in (given, getattr(data, "num_classes", None), getattr(module, "num_classes", None)):
        if isinstance(count, int):
            return count
    raise UserError(
        f"{type(callback).__name__} needs the number of classes, and neither the data module nor "
        f"{type(module).__name__} has num_classes; give it num_classes."
    )

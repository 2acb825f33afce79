"""When in a run something begins."""

from lightning.pytorch import Callback, Trainer

from medbolt.core.errors import UserError


def check_start(start: float) -> None:
    """Refuse what is neither an epoch nor a share.

    Raises:
        ValueError: if ``start`` is negative, or a float above 1.

    Example:
        >>> check_start(0.8), check_start(160)
        (None, None)
    """
    if start < 0 or (isinstance(start, float) and start > 1):
        raise ValueError(f"start must be an epoch (an integer from 0) or a share of them (0.0 to 1.0), got {start}")


def start_epoch(callback: Callback, start: float, trainer: Trainer) -> int:
    """Return the first epoch, from 0, of what starts at an epoch (int) or a share of all epochs (float).

    A share is rounded down: 0.8 of 50 epochs is epoch 40.

    Args:
        callback: Who asks, for the message.
        start: Epoch or share.
        trainer: The trainer, which knows how many epochs there are.

    Raises:
        UserError: if a share is asked of a run whose number of epochs is not set.

    Example:
        >>> trainer = Trainer(max_epochs=90, accelerator="cpu", logger=False)
        >>> start_epoch(Callback(), 0.8, trainer), start_epoch(Callback(), 60, trainer)
        (72, 60)
    """
    if not isinstance(start, float):
        return start
    epochs = trainer.max_epochs
    if epochs is None or epochs < 0:
        raise UserError(
            f"{type(callback).__name__} starts at a share of the epochs, start={start}, but the trainer has no "
            "max_epochs; set it, or give start as an epoch."
        )
    return int(start * epochs + 1e-9)  # 0.29 * 100 is 28.999999999999996

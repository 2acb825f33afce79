"""The order of callbacks that average weights and those that give the module more of them."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from medbolt.core.errors import UserError


def refuse_earlier_averaging(
    callback: Callback,
    trainer: Trainer,
    kinds: tuple[type[Callback], ...] = (WeightAveraging, StochasticWeightAveraging),
    why: str = "copies the module before it adds to that",
) -> None:
    """Refuse averaging that stands before a callback, as one that adds parameters, which the average would lack.

    Args:
        callback: What is to stand first.
        trainer: Its trainer.
        kinds: Kinds of averaging that cannot stand before it.
        why: What averaging does, for the message; "it" is the callback.

    Raises:
        UserError: naming both.

    Example:
        >>> refuse_earlier_averaging(Callback(), Trainer(accelerator="cpu", logger=False))
    """
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    for earlier in callbacks[: callbacks.index(callback)] if callback in callbacks else ():
        if isinstance(earlier, kinds):
            raise UserError(
                f"{type(earlier).__name__} stands before {type(callback).__name__} and {why}; in the list of callbacks "
                f"put {type(callback).__name__} first."
            )

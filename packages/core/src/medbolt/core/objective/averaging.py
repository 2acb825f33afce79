"""The order of callbacks that average weights and those that give the module more of them."""

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import StochasticWeightAveraging, WeightAveraging

from medbolt.core.errors import UserError


def refuse_earlier_averaging(
    callback: Callback,
    trainer: Trainer,
    kinds: tuple[type[Callback], ...] = (WeightAveraging, StochasticWeightAveraging),
) -> None:
    """Refuse averaging that stands before a callback which adds parameters: its copy of the module would lack them.

    Args:
        callback: What adds parameters in ``setup``.
        trainer: Its trainer.
        kinds: Kinds of averaging that cannot stand before it.

    Raises:
        UserError: naming both.

    Example:
        >>> refuse_earlier_averaging(Callback(), Trainer(accelerator="cpu", logger=False))
    """
    callbacks = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    for earlier in callbacks[: callbacks.index(callback)] if callback in callbacks else ():
        if isinstance(earlier, kinds):
            raise UserError(
                f"{type(earlier).__name__} copies the module before {type(callback).__name__} adds to it; in the list "
                f"of callbacks put {type(callback).__name__} first."
            )

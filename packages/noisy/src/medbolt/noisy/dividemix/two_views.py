"""Two views of each training image while a task trains that compares them."""

from collections.abc import Callable

from lightning.pytorch import Callback, LightningModule, Trainer

from medbolt.core.data.multi_view import add_view


class TwoViews(Callback):
    """Have the data module apply its training transform twice for ``fit``, unless it makes several views already.

    The data module gets its own transform back when ``fit`` ends, also by an exception, of which Lightning tells
    callbacks only.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[TwoViews()], logger=False, enable_checkpointing=False)
    """

    def __init__(self) -> None:
        self._restore: Callable[[], None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Ask the data module for a second view."""
        if stage == "fit":
            self._restore = add_view(trainer.datamodule, lambda own: own)  # pyright: ignore[reportAttributeAccessIssue]

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the data module its own transform back."""
        self._give_back()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the data module its own transform back."""
        self._give_back()

    def _give_back(self) -> None:
        if self._restore is not None:
            self._restore()
            self._restore = None

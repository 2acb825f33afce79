"""Whether a fit begins, is resumed or goes on: weights from elsewhere are for the first of these alone."""

from collections.abc import Callable, Mapping
from typing import Any
from weakref import ref

from lightning.pytorch import LightningModule, Trainer

from medbolt.core.errors import UserError


class Beginning:
    """Have a callback's weights loaded where a fit begins, and complain of them only there.

    They are loaded in ``setup``, before the optimizers are made and before a callback searches a learning rate. Whether
    a checkpoint is to be resumed, which needs no other weights, is known only later.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> beginning = Beginning()
        >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
        >>> beginning.load(trainer, LightningModule(), lambda: None)  # is called
        >>> beginning.is_one()
        True
    """

    def __init__(self) -> None:
        self._module: ref[LightningModule] | None = None
        self._is_over = False  # resumed, or goes on
        self._complaint: UserError | None = None

    def load(self, trainer: Trainer, module: LightningModule, function: Callable[[], None]) -> None:
        """Call a function that loads weights, unless this fit goes on with the module of the one before it."""
        self._is_over = trainer.current_epoch > 0 and self._module is not None and self._module() is module
        self._module, self._complaint = ref(module), None
        if not self._is_over:
            try:
                function()
            except UserError as error:
                self._complaint = error

    def see(self, checkpoint: Mapping[str, Any]) -> None:
        """Take note of a checkpoint that is loaded; one without a step is a search's, which restores the start."""
        self._is_over |= checkpoint["global_step"] > 0

    def is_one(self) -> bool:
        """Return whether the fit begins.

        Raises:
            UserError: if it does and the weights could not be loaded.
        """
        if self._complaint is not None and not self._is_over:
            raise self._complaint
        return not self._is_over

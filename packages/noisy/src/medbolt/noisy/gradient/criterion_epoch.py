"""Tell a criterion with a schedule which epoch it is."""

from operator import attrgetter
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from medbolt.core.errors import UserError


class CriterionEpoch(Callback):
    """Call ``set_epoch`` of a module's criterion, as :class:`~medbolt.noisy.PeerSieveLoss` (CORES2) needs it.

    It is told before every training batch, so also in the first epoch after a resume. Validation and test compute the
    loss of the last epoch that was trained, before this process or in it; of a module that was not trained, that of
    epoch 0.

    The label frequencies of :class:`~medbolt.noisy.PeerSieveLoss` stay those of all training labels: the authors count
    again each epoch over the samples that pass the sieve, which the loss does not report.

    Args:
        criterion: Attribute of the criterion, dotted if nested. Every part of it with a ``set_epoch`` is told.

    Raises:
        UserError: if the attribute does not exist or no part of it has a ``set_epoch``.

    State, cost: the epoch.

    Source: the authors' code of Cheng et al., arXiv 2010.02347, passes the epoch to the loss in its training loop.

    Example:
        >>> callback = CriterionEpoch(criterion="loss_fn")
    """

    def __init__(self, criterion: str = "criterion") -> None:
        self.criterion = criterion
        self._epoch = 0
        self._scheduled: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find what to tell."""
        try:
            criterion = attrgetter(self.criterion)(pl_module)
        except AttributeError:
            raise UserError(
                f"{type(pl_module).__name__} has no criterion '{self.criterion}' for CriterionEpoch; name the "
                "attribute, criterion='loss_fn' for instance."
            ) from None
        parts = criterion.modules() if isinstance(criterion, nn.Module) else [criterion]
        self._scheduled = [part for part in parts if callable(getattr(part, "set_epoch", None))]
        if not self._scheduled:
            raise UserError(
                f"criterion '{self.criterion}' of {type(pl_module).__name__}, a {type(criterion).__name__}, has no "
                "set_epoch; leave CriterionEpoch out, or use a loss with a schedule, such as PeerSieveLoss."
            )
        self._tell(0 if stage == "fit" else self._epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Tell the epoch: each batch, for Lightning leaves out ``on_train_epoch_start`` after some resumes."""
        self._tell(trainer.current_epoch)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch."""
        return {"epoch": self._epoch}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the epoch."""
        self._tell(state_dict["epoch"])

    def _tell(self, epoch: int) -> None:
        self._epoch = epoch
        for part in self._scheduled:
            part.set_epoch(epoch)

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return self._generate_state_key(criterion=self.criterion)

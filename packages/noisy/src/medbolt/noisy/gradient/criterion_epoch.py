"""Tell a criterion with a schedule which epoch it is."""

from operator import attrgetter
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.noisy.losses.peer_sieve import PeerSieveLoss
from medbolt.noisy.selection.labels import reduced


class CriterionEpoch(Callback):
    """Call ``set_epoch`` of a module's criterion, as :class:`~medbolt.noisy.PeerSieveLoss` (CORES2) needs it.

    It is told before every training batch, so also in the first epoch after a resume. Validation and test compute the
    loss of the last epoch that was trained, before this process or in it; of a module that was not trained, that of
    epoch 0.

    Checkpoints keep what a :class:`~medbolt.noisy.PeerSieveLoss` counts, so that a resumed run goes on with the label
    frequencies of the uninterrupted one.

    Args:
        criterion: Attribute of the criterion, dotted if nested. Every part of it with a ``set_epoch`` is told.

    Raises:
        UserError: if the attribute does not exist or no part of it has a ``set_epoch``.

    State, cost: the epoch; of a sieve two counts a class.

    Source: the authors' code of Cheng et al., arXiv 2010.02347, passes the epoch to the loss in its training loop.

    Example:
        >>> callback = CriterionEpoch(criterion="loss_fn")
    """

    def __init__(self, criterion: str = "criterion") -> None:
        self.criterion = criterion
        self._epoch = 0
        self._is_first, self._has_failed = True, False
        self._scheduled: list[Any] = []

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find what to tell."""
        self._is_first, self._has_failed = trainer.is_global_zero, False
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
        self._tell(trainer.current_epoch if stage == "fit" else self._epoch)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move restored counts to the module's device, on which processes add theirs up."""
        for sieve in self._sieves:
            for name in ("passed", "estimated"):
                if (counts := getattr(sieve, name)) is not None:
                    setattr(sieve, name, counts.to(pl_module.device))

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Tell the epoch: each batch, for Lightning leaves out ``on_train_epoch_start`` after some resumes."""
        self._tell(trainer.current_epoch)

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Ask nothing of other processes any more."""
        self._has_failed = True

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Let process 0 take over what the others have counted, for checkpoints inside an epoch."""
        if trainer.world_size > 1 and not self._has_failed:  # after a failure the other processes may be gone
            for sieve in self._sieves:
                if sieve.passed is not None:
                    total = reduced(trainer, sieve.passed.clone(), "sum")
                    sieve.passed = total if trainer.is_global_zero else torch.zeros_like(total)
            checkpoint["callbacks"][self.state_key] = self.state_dict()  # Lightning asked for it before this hook

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch and what sieves count."""
        sieves = [{"passed": _on_cpu(sieve.passed), "estimated": _on_cpu(sieve.estimated)} for sieve in self._sieves]
        return {"epoch": self._epoch, "sieves": sieves}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them; process 0 goes on with the counts of all."""
        self._tell(state_dict["epoch"])
        for sieve, saved in zip(self._sieves, state_dict.get("sieves", []), strict=False):
            passed = saved["passed"]
            sieve.passed = passed if self._is_first or passed is None else torch.zeros_like(passed)
            sieve.estimated = saved["estimated"]

    @property
    def _sieves(self) -> list[PeerSieveLoss]:
        return [part for part in self._scheduled if isinstance(part, PeerSieveLoss)]

    def _tell(self, epoch: int) -> None:
        self._epoch = epoch
        for part in self._scheduled:
            part.set_epoch(epoch)

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return self._generate_state_key(criterion=self.criterion)


def _on_cpu(values: Tensor | None) -> Tensor | None:
    return None if values is None else values.cpu()

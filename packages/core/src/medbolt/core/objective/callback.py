"""The base of every method that changes the loss: a callback on the criterion a module already has."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import ref

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from medbolt.core.errors import UserError, listed
from medbolt.core.memory import SampleMemory
from medbolt.core.objective.attachment import Attachment
from medbolt.core.objective.averaging import refuse_earlier_averaging
from medbolt.core.objective.capture import Captured
from medbolt.core.objective.stack import ObjectiveStack
from medbolt.core.objective.step import Capture, TrainingStep


class ObjectiveCallback(Callback):
    """Replace the loss of any LightningModule while a training batch runs, without touching the module's code.

    Subclasses override :meth:`objective`, which gets a :class:`~medbolt.core.objective.step.TrainingStep` and returns
    per-sample losses; ``step.loss()`` is the next objective inward, in the end the module's own criterion. Several
    callbacks stack: a later one in ``Trainer(callbacks=[...])`` is further out. The reduction to a scalar happens once,
    as the criterion is configured. Validation and everything after ``fit`` see the module as it was.

    This class itself changes nothing.

    Args:
        criterion: Attribute of the module that holds the criterion (an ``nn.Module`` or any callable of prediction and
            target), dotted if nested; ``"functional"`` when ``training_step`` calls
            ``torch.nn.functional.cross_entropy`` (or ``nll_loss``, ``binary_cross_entropy``,
            ``binary_cross_entropy_with_logits``) itself.
        network: Attribute of the network whose inputs ``step.inputs`` gives; ``"self"`` for the module itself.
        features: Dotted attribute of the layer whose output ``step.features`` gives.

    Raises:
        UserError: at ``fit``, if the criterion attribute does not exist (the message lists candidates), or if
            ``training_step`` does not call it in the first epoch.

    Example:
        >>> class Bootstrap(ObjectiveCallback):  # soft bootstrapping, arXiv 1412.6596
        ...     def objective(self, step):
        ...         p = step.logits.detach().softmax(1)
        ...         return 0.8 * step.loss() - 0.2 * (p * step.logits.log_softmax(1)).sum(1)
        >>> callback = Bootstrap(criterion="loss_fn", network="net")
    """

    def __init__(self, criterion: str = "criterion", network: str = "model", features: str | None = None) -> None:
        self.criterion = criterion
        self.network = network
        self.features = features
        self.memory: SampleMemory | None = None
        self.capture = Capture(network)
        self._stack: ObjectiveStack | None = None
        self._captured: Captured | None = None
        self._attachments: dict[str, Attachment] = {}
        self._undo: list[Callable[[], None]] = []
        self._final_state: dict[str, Any] | None = None  # of a fit that is over, for checkpoints saved afterwards
        self._earlier: dict[str, Any] | None = None  # what a fit of the same module before this one knew in the end
        self._fitted: ref[LightningModule] | None = None  # None and not a function, for a spawning strategy pickles it
        self._epoch = -1  # the last that begin_epoch was called for

    def objective(self, step: TrainingStep) -> Tensor:
        """Return per-sample losses, (B,), differentiable with respect to ``step.logits``."""
        return step.loss()

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Do what is due between epochs: select samples, correct labels, change a schedule.

        It runs on every process before the first batch of each epoch, the first epoch included, with :attr:`memory`
        merged, and once an epoch only: also when a run is resumed, where Lightning leaves out ``on_train_epoch_end``
        and ``on_train_epoch_start`` around an epoch's end at which a checkpoint was saved. ``trainer.current_epoch`` is
        the epoch that begins. It is not repeated in a run that is resumed inside an epoch: what later batches need of
        it belongs into :attr:`memory` or :meth:`state_dict`.
        """

    def attach(self, module: LightningModule, name: str, submodule: nn.Module) -> None:
        """Train a submodule with the module's optimizer; call it in ``setup``, before the optimizers are made.

        Its parameters are neither in the module's ``state_dict`` nor in exported weights; a checkpoint keeps them with
        this callback. :meth:`teardown` takes it out again.

        Args:
            module: The module in training.
            name: Attribute of the module to use.
            submodule: What to train: a peer network, a transition matrix.

        Raises:
            UserError: if the attribute is taken, or an averaging of weights stands before this callback.
        """
        if module._trainer is not None:
            refuse_earlier_averaging(self, module.trainer, (WeightAveraging,))
        self._attachments[name] = Attachment(module, name, submodule)

    def undo_later(self, undo: Callable[[], None]) -> None:
        """Have something undone when the fit is over, also by an exception: what ``setup`` changed elsewhere."""
        self._undo.append(undo)

    def remember(self, trainer: Trainer, **fields: Tensor) -> SampleMemory:
        """Make :attr:`memory`, one row a training sample; it is merged at epoch ends and kept in checkpoints.

        Args:
            trainer: The trainer, whose data module says how many samples there are.
            fields: By name, the row that every sample starts with.

        Raises:
            UserError: if the data module does not know its training set.
        """
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not hasattr(data, "train_size"):
            raise UserError(
                f"{type(self).__name__} keeps a memory of every training sample, but the data do not say how many "
                "there are; pass a data module, wrapped if it is not medbolt's: "
                "datamodule=medbolt.core.Indexed(datamodule)."
            )
        self.memory = SampleMemory(data.train_size, **fields)
        self.memory.fingerprint = data.fingerprint
        return self.memory

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion for ``fit``."""
        if stage != "fit":
            return
        self._release()
        self._earlier = self._final_state if self._fitted is not None and self._fitted() is pl_module else None
        self._final_state, self._epoch, self._fitted = None, -1, ref(pl_module)
        others = [c for c in trainer.callbacks if isinstance(c, ObjectiveCallback) and c.criterion == self.criterion]  # pyright: ignore[reportAttributeAccessIssue]
        stacks = [c._stack for c in others if c._stack is not None and c._stack.module is pl_module]
        self._stack = stacks[0] if stacks else ObjectiveStack(pl_module, self.criterion)
        self._stack.objectives.append(self)
        self._captured = Captured(self.capture, pl_module, self.network, self.features)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that an optimizer trains what was attached; go on with what a fit before this one knew."""
        held = {id(p) for optimizer in trainer.optimizers for group in optimizer.param_groups for p in group["params"]}
        for name, attachment in self._attachments.items():
            if any(p.requires_grad and id(p) not in held for p in attachment.submodule.parameters()):
                raise UserError(
                    f"no optimizer of {type(pl_module).__name__} holds the parameters that {type(self).__name__} "
                    f"attached as '{name}', so they would stay untrained; give the optimizer self.parameters() in "
                    "configure_optimizers."
                )
        knows = bool(trainer.ckpt_path) or not trainer.current_epoch
        if not knows and self._earlier is not None:
            with suppress(UserError):  # of other data
                self.load_state_dict(self._earlier)
                knows = True
        self._earlier = None
        if self.memory is not None:
            self.memory.to(pl_module.device)
            if not knows:
                rank_zero_warn(
                    f"{type(self).__name__} goes on in epoch {trainer.current_epoch} without what it remembered of the "
                    "samples in the epochs before; to keep that, resume from a checkpoint (ckpt_path)."
                )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept."""
        assert self._stack is not None
        assert self._captured is not None
        if self._epoch != trainer.current_epoch:
            self._epoch = trainer.current_epoch
            self.begin_epoch(trainer, pl_module)
        index: Tensor | None = getattr(trainer.datamodule, "batch_index", None)  # pyright: ignore[reportAttributeAccessIssue]
        self._stack.start(batch, index)
        self._captured.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop intercepting."""
        self._stop()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Stop intercepting, should the batch have been skipped."""
        self._stop()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make the memory equal on all processes; refuse to go on if the criterion was never called."""
        self._stop()
        if self._stack is not None:
            self._stack.require_use()
        if self.memory is not None:
            self.memory.merge(trainer.strategy)

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Make the memory equal on all processes, for checkpoints inside an epoch."""
        if self.memory is not None and self._final_state is None:  # after a failure the other processes may be gone
            self.memory.merge(trainer.strategy)
            checkpoint["callbacks"][self.state_key] = self.state_dict()  # Lightning asked for it before this hook

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the module its criterion back and take out what was attached."""
        self._release()
        if trainer.world_size > 1:  # whose memories were not merged
            self._fitted = None

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the module its criterion back and take out what was attached."""
        if stage == "fit":
            self._release()

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint."""
        return self._generate_state_key(criterion=self.criterion, network=self.network, features=self.features)

    def state_dict(self) -> dict[str, Any]:
        """Return the epoch, the memory and what was attached."""
        if self._final_state is not None:
            return self._final_state
        state: dict[str, Any] = {"epoch": self._epoch}
        if self._attachments:
            state["attached"] = {name: item.submodule.state_dict() for name, item in self._attachments.items()}
        return state if self.memory is None else state | {"memory": self.memory.state_dict()}

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Refuse to resume a run without what is attached here; its optimizer does not know these parameters."""
        # before load_state_dict, which is not called where the checkpoint knows nothing of this callback
        attached = checkpoint["callbacks"].get(self.state_key, {}).get("attached", {})
        if attached.keys() != self._attachments.keys() and self._attachments:
            raise UserError(
                f"the checkpoint holds {listed(attached) or 'nothing'} of {type(self).__name__}, which attaches "
                f"{listed(self._attachments)}; resume with the method it was trained with."
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self._epoch = state_dict["epoch"]
        attached = state_dict.get("attached", {})
        for name, item in self._attachments.items():
            item.submodule.load_state_dict(attached[name])
        if self.memory is not None and "memory" in state_dict:
            self.memory.load_state_dict(state_dict["memory"])

    def _stop(self) -> None:
        if self._stack is not None and self._captured is not None:
            self._stack.stop()
            self._captured.stop()

    def _release(self) -> None:
        if self._stack is not None:
            self._final_state = self.state_dict()
            self._stack.objectives.remove(self)
            if not self._stack.objectives:
                self._stack.remove()
        self._stack = None
        if self._captured is not None:
            self._captured.remove()
        self._captured = None
        for attachment in self._attachments.values():
            attachment.remove()
        self._attachments = {}
        while self._undo:
            self._undo.pop()()

"""What an objective sees of one call of the criterion."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from lightning.pytorch import LightningModule
from torch import Tensor

from medbolt.core.errors import UserError


@dataclass
class Capture:
    """What hooks on the network saw last in this training batch: its inputs and the output of a named layer."""

    network: str
    running: bool = False
    inputs: tuple[Any, ...] | None = None
    features: Tensor | None = None


@dataclass(frozen=True)
class TrainingStep:
    """One call of the criterion inside a training batch.

    Args:
        logits: (B, C) float, or (B, C, ...) where the module predicts maps. Where the criterion takes log-probabilities
            or probabilities (``NLLLoss``, ``BCELoss``), these are converted to logits.
        target: What the module gave the criterion: (B,) int64, (B, C) float, ...
        batch: The batch as the module's ``training_step`` got it.
        module: The LightningModule in training.
        is_own: Whether the logits are those of the module's network for :attr:`inputs`, to which :attr:`features`
            belong; not those that an objective further out put in their place, such as a peer's.

    Example:
        >>> def halve_the_loss_of_confident_samples(step: TrainingStep) -> Tensor:
        ...     confident = step.logits.softmax(1).amax(1) > 0.9
        ...     return step.loss() * (1 - 0.5 * confident)
    """

    logits: Tensor
    target: Tensor
    batch: Any
    module: LightningModule
    _inward: Callable[["TrainingStep"], Tensor] = field(repr=False)
    _capture: Capture = field(repr=False)
    _index: Tensor | None = field(repr=False, default=None)
    is_own: bool = True

    def loss(self, logits: Tensor | None = None, target: Tensor | None = None) -> Tensor:
        """Return the next objective inward, per sample, (B,): in the end the module's own criterion.

        The mean over the batch is what the criterion's own ``reduction="mean"`` gives, class weights and ignored
        targets included.

        Args:
            logits: Logits to use instead of the step's, for instance a peer network's.
            target: Targets to use instead of the step's, for instance corrected ones.
        """
        step = replace(
            self,
            logits=self.logits if logits is None else logits,
            target=self.target if target is None else target,
            is_own=self.is_own and logits is None,
        )
        return self._inward(step)

    @property
    def index(self) -> Tensor:
        """(B,) int64 positions of the samples in the base training set.

        Raises:
            UserError: if the batch does not tell.
        """
        index = self._index
        if index is None and isinstance(self.batch, Mapping):
            index = self.batch.get("index")
        if index is None:
            raise UserError(
                "this method needs to know which samples a batch holds, but the batch carries no 'index'; wrap the "
                "data module, trainer.fit(model, datamodule=medbolt.core.Indexed(datamodule)), or yield dict batches "
                "with an 'index' key."
            )
        if len(index) != len(self.target):
            raise UserError(
                f"the batch has {len(index)} indices but the criterion got {len(self.target)} targets; per-sample "
                "methods need one criterion target a sample."
            )
        return index.to(self.logits.device)

    @property
    def inputs(self) -> tuple[Any, ...]:
        """Positional arguments of the network's last call, so that a peer network can be given the same."""
        if self._capture.inputs is None:
            raise UserError(
                f"the network attribute '{self._capture.network}' of {type(self.module).__name__} was not called "
                "before the criterion in this batch; name the attribute that training_step calls, e.g. network='net'."
            )
        return self._capture.inputs

    @property
    def features(self) -> Tensor:
        """Output of the layer named by ``features`` in the network's last call, usually (B, D)."""
        if self._capture.features is None:
            raise UserError(
                f"no features were captured in {type(self.module).__name__}; name a layer that training_step calls, "
                "e.g. features='model.features'."
            )
        return self._capture.features

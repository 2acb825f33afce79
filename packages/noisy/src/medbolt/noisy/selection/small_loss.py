"""Small-loss selection: learn from the samples that fit, as mislabelled ones are learned late."""

from typing import Any, Literal

from lightning.fabric.utilities import rank_zero_warn
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.one_class import OneClassTargets
from medbolt.noisy.selection.peer import PeerNetwork
from medbolt.noisy.selection.selection import Selection
from medbolt.noisy.selection.smallest import weighted, weights_of_smallest

Scope = Literal["local", "global"]


class SmallLossSelection(ObjectiveCallback):
    r"""Train on the samples of smallest loss in each batch; the baseline of the methods with two networks.

    .. math::
        \frac{1}{n} \sum_{i \in I} \ell_i, \qquad |I| = n = \max(1, \lfloor R(t) B \rfloor), \qquad
        R(t) = 1 - \tau \min\left(\frac{t^c}{T_k}, 1\right)

    I are the samples of smallest loss. Which loss that is, the criterion and the objectives inward say: class weights
    count in the ranking. An objective inward that remembers samples should stand further out instead: methods with two
    networks call it for both.

    Methods with two networks keep the peer when a trainer fits the same module once more. Where training begins at a
    later epoch with a peer drawn anew, as with another callback of the kind, they warn: a network that has learned
    nothing then picks samples at that epoch's rate.

    Args:
        forget_rate: Share :math:`\tau` of samples to leave out in the end, in [0, 1): the rate of the noise.
        gradual_epochs: Epochs :math:`T_k` until that share is reached (for exponent 1); 0 leaves it out at once.
        exponent: Exponent c of the epoch, positive.
        scope: ``"local"`` ranks the samples of one process's batch, ``"global"`` those of all processes together: two
            processes then do what one does with the double batch.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.
        features: Dotted attribute of the layer of ``step.features``.

    Raises:
        ValueError: if an argument is out of its range.

    State, cost: none; sorting B losses. With ``"global"`` every batch gathers them and waits for all processes.

    Source: the selection of Han et al., arXiv 1804.06872, by the network itself. The exponent is the paper's; the
    authors' code puts it on :math:`\tau`. At least one sample is kept, where theirs divides by zero.

    Example:
        >>> callback = SmallLossSelection(forget_rate=0.4, gradual_epochs=10)
        >>> [round(callback.keep_fraction(epoch), 2) for epoch in (0, 5, 10, 20)]
        [1.0, 0.8, 0.6, 0.6]
    """

    def __init__(
        self,
        forget_rate: float,
        gradual_epochs: int = 10,
        exponent: float = 1.0,
        scope: Scope = "local",
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if not 0 <= forget_rate < 1:
            raise ValueError(f"forget_rate must be in [0, 1), got {forget_rate}")
        if gradual_epochs < 0 or exponent <= 0:
            raise ValueError(
                f"gradual_epochs must not be negative and exponent positive, got {gradual_epochs} and {exponent}"
            )
        if scope not in ("local", "global"):
            raise ValueError(f"scope must be 'local' or 'global', got {scope!r}")
        self.forget_rate, self.gradual_epochs, self.exponent = forget_rate, gradual_epochs, exponent
        self.scope: Scope = scope
        self.selection: Selection | None = None
        self._peer: PeerNetwork | None = None  # set by methods with two networks
        self._one_class = OneClassTargets(type(self).__name__)  # for those that compare probabilities
        self._has_warned = False

    @property
    def peer(self) -> nn.Module | None:
        """The peer network of methods with two networks, from the start of ``fit`` on."""
        return None if self._peer is None else self._peer.network

    def keep_fraction(self, epoch: int) -> float:
        """Return the share of samples to keep in an epoch, counted from 0."""
        progress = min(epoch**self.exponent / self.gradual_epochs, 1.0) if self.gradual_epochs else 1.0
        return 1 - self.forget_rate * progress

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses of the samples kept, scaled to their mean."""
        losses = step.loss()
        weights = self.weights(step, losses)
        self.select(step, weights)
        return weighted(losses, weights)

    def weights(self, step: TrainingStep, losses: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Return (B,) weights of the samples, 0 for those left out; the mean with losses is that of the samples kept.

        Args:
            step: The step.
            losses: (B,) to rank by.
            candidates: (B,) bool, the samples to choose among.
        """
        fraction = self.keep_fraction(step.module.current_epoch)
        if self.scope == "local" and fraction * len(losses) < 4 and not self._has_warned:
            self._has_warned = True
            rank_zero_warn(
                f"{type(self).__name__} keeps {fraction:.0%} of batches of {len(losses)} samples, fewer than four; "
                "enlarge the batch, or rank the batches of all processes together with scope='global'."
            )
        strategy = step.module.trainer.strategy if self.scope == "global" else None
        return weights_of_smallest(losses, fraction, candidates, strategy)

    def exchange(self, step: TrainingStep, first: Tensor, second: Tensor, candidates: Tensor | None = None) -> Tensor:
        """Let each of two networks learn from the samples that the other one would keep; return both losses' sum.

        Args:
            step: The step.
            first: (B,) losses of the module's network.
            second: (B,) losses of the peer.
            candidates: (B,) bool, the samples to choose among.
        """
        for_second, for_first = self.weights(step, first, candidates), self.weights(step, second, candidates)
        self.select(step, for_first)
        return weighted(first, for_first) + weighted(second, for_second)

    def select(self, step: TrainingStep, weights: Tensor) -> None:
        """Note for :attr:`selection` which samples the module's network learns from."""
        try:
            index = step.index
        except UserError:  # which only diagnostics need
            index = None
        self.selection = Selection(index, weights > 0)

    def peer_logits(self, step: TrainingStep) -> Tensor:
        """Return the peer's logits of the batch."""
        assert self._peer is not None
        return self._peer.logits(step)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; make the peer network."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self.selection, self._has_warned = None, False
        if self._peer is not None:
            self.attach(pl_module, "peer_network", self._peer.make(pl_module, self.network, trainer.global_step > 0))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warn of a peer network that begins late."""
        super().on_train_start(trainer, pl_module)
        if self._peer is not None:
            self._peer.warn_if_late(type(self).__name__, trainer.current_epoch)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Forget the last batch's selection."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self.selection = None

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore the peer network."""
        super().load_state_dict(state_dict)
        if self._peer is not None:
            self._peer.is_new = False

"""T-Revision: estimate the transition matrix, reweight by it, then correct it while training goes on."""

from operator import attrgetter
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from medbolt.core.errors import UserError, listed
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.core.objective.training_pass import network_input, training_pass
from medbolt.noisy.class_count import class_count
from medbolt.noisy.losses.targets import expected, log_probability
from medbolt.noisy.losses.transition import noisy_probability
from medbolt.noisy.one_class import OneClassTargets
from medbolt.noisy.transition.anchor_points import TransitionEstimate, estimate_transition
from medbolt.noisy.transition.context import log_transition_error, require_classes
from medbolt.noisy.transition.step_options import StepOptions

_LEAST = 1e-6  # entry of a matrix in use, before its rows are normalised


class TRevision(ObjectiveCallback):
    r"""Reweight the loss by how probable each label is to be the true one, with a matrix found from anchor points.

    .. math::
        \ell_i = \frac{p_{i,y_i}}{(\tilde T^\top p_i)_{y_i}} \, \ell(p_i, y_i), \qquad
        \tilde T = \operatorname{rownorm}\bigl(\max(\hat T + \Delta, \epsilon)\bigr)

    One fit in three stages. Until ``estimate_epochs`` the loss is the module's own, by which the network learns the
    noisy labels; then :func:`~medbolt.noisy.estimate_transition` makes :math:`\hat T` from its predictions for the
    training samples. From there each loss has the weight above, without gradient, at :math:`\Delta = 0`. From
    ``revision_epoch`` on :math:`\Delta`, K x K and the same for all samples, trains with the network, and the weight
    has a gradient. The network's plain softmax predicts clean labels.

    The loss that is weighed is the next objective inward, in the end the module's criterion, which should estimate
    probabilities: cross entropy. Soft targets count as the mean over labels drawn from them, for criteria that are
    linear in the target as cross entropy is.

    Args:
        estimate_epochs: Epochs of the first stage, at least 1: enough to learn, too few to memorise.
        revision_epoch: First epoch (from 0) of the last stage, not before ``estimate_epochs``.
        revision_lr: Factor on all learning rates in the last stage, positive.
        outlier_percentile: See :func:`~medbolt.noisy.estimate_transition`.
        top_m: See :func:`~medbolt.noisy.estimate_transition`.
        num_classes: Number of classes K; by default what the data module or the module says.
        criterion: Attribute of the module's criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network that makes logits of the batch's input; ``"self"`` for the module itself.

    Raises:
        ValueError: if an argument is out of range.
        UserError: at ``fit``, if the number of classes is unknown, no optimizer holds :math:`\Delta`, or the data
            cannot be passed once more (see :func:`~medbolt.core.training_pass`); at a step, if logits are not (B, K) or
            samples have several findings.

    State, cost: two K x K matrices, with the callback in checkpoints; one pass over the training set; a product with
    the matrix a step. Logs ``lnl/T_error`` each epoch where the data know the clean labels.

    Source: Xia et al., arXiv 1906.00189. The authors run three trainings with an optimizer each (the last is Adam with
    a learning rate of 5e-7), starting each from the epoch of best noisy validation before. Here it is one training with
    one optimizer: each stage goes on from the last epoch of the one before, with its momentum, and ``revision_lr`` is
    what the last stage changes. :math:`\Delta` has no weight decay. Their code adds :math:`\Delta` once more for each
    sample of a batch, so that a loss depends on its place in it, and divides columns by row sums; neither is done here.

    Example:
        >>> callback = TRevision(estimate_epochs=5, revision_epoch=20, revision_lr=0.1)
    """

    def __init__(
        self,
        estimate_epochs: int = 5,
        revision_epoch: int = 20,
        revision_lr: float = 1.0,
        outlier_percentile: float | None = 97.0,
        top_m: int = 1,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if not 1 <= estimate_epochs <= revision_epoch:
            raise ValueError(
                f"1 <= estimate_epochs <= revision_epoch is needed, got {estimate_epochs} and {revision_epoch}"
            )
        if revision_lr <= 0:
            raise ValueError(f"revision_lr must be positive, got {revision_lr}")
        self.estimate_epochs, self.revision_epoch, self.revision_lr = estimate_epochs, revision_epoch, revision_lr
        self.outlier_percentile, self.top_m, self.num_classes = outlier_percentile, top_m, num_classes
        self.estimate: TransitionEstimate | None = None
        """What was found from anchor points in this process."""
        self._one_class = OneClassTargets(type(self).__name__)
        self._layer: RevisedTransition | None = None
        self._step_options: StepOptions | None = None

    @property
    def transition(self) -> Tensor:
        """(K, K) float32: entry [i, j] is the revised probability that class i is labelled j."""
        if self._layer is None or not self._layer.is_known:
            raise UserError(f"TRevision has no transition matrix before epoch {self.estimate_epochs} begins; train on.")
        with torch.no_grad():
            return self._layer().cpu()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach the matrices."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self._layer = RevisedTransition(class_count(self, self.num_classes, trainer, pl_module))
            self.attach(pl_module, "noise_transition", self._layer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the correction out of weight decay."""
        super().on_train_start(trainer, pl_module)
        assert self._layer is not None
        self._step_options = StepOptions(trainer.optimizers, self._layer.parameters())
        self.undo_later(self._step_options.remove)

    def begin_epoch(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimate the matrix when the first stage is over."""
        assert self._layer is not None
        if trainer.current_epoch < self.estimate_epochs or self._layer.is_known:
            return
        network = self._find_network(pl_module)
        count = len(self._layer.delta)

        def evaluate(batch: Any) -> dict[str, Tensor]:
            logits = network(network_input(batch))
            require_classes("TRevision", logits, count)
            return {"probability": log_probability(logits).exp()}

        seen = training_pass(trainer, pl_module, evaluate, "transition matrix", probability=torch.zeros(count))
        self.estimate = estimate_transition(seen["probability"][seen.seen], self.outlier_percentile, self.top_m)
        self._layer.set_estimate(self.estimate.transition)
        if self.estimate.without_anchor:
            rank_zero_warn(
                f"TRevision found no sample typical of the classes {listed(self.estimate.without_anchor)}; their rows "
                "of the transition matrix are guesses. More estimate_epochs, or outlier_percentile=None where classes "
                "are rare, may help."
            )

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Choose the stage's learning rate."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        assert self._step_options is not None
        factor = self.revision_lr if trainer.current_epoch >= self.revision_epoch else 1.0
        self._step_options.lr = self._step_options.rest_lr = factor

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses of the stage."""
        assert self._layer is not None
        self._one_class.require(step)
        require_classes("TRevision", step.logits, len(self._layer.delta))
        epoch = step.module.current_epoch
        unused = 0.0 * self._layer.delta.sum()  # a gradient every step, which DistributedDataParallel waits for
        if epoch < self.estimate_epochs:
            return step.loss() + unused
        if epoch < self.revision_epoch:
            log_p = log_probability(step.logits.detach())
            return _weighted(step, log_p, self._layer.estimate) + unused
        return _weighted(step, log_probability(step.logits), self._layer())

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Let the optimizer pass over the correction until the last stage, whose first step is then its first."""
        super().on_before_optimizer_step(trainer, pl_module, optimizer)
        if self._layer is not None and trainer.current_epoch < self.revision_epoch:
            self._layer.delta.grad = None

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how wrong the matrix is, where the truth is known."""
        super().on_train_epoch_end(trainer, pl_module)
        if trainer.current_epoch >= self.estimate_epochs:
            log_transition_error(self.transition, trainer, pl_module)

    def _find_network(self, module: LightningModule) -> nn.Module:
        if self.network == "self":
            return module
        try:
            return attrgetter(self.network)(module)
        except AttributeError:
            raise UserError(
                f"{type(module).__name__} has no network '{self.network}' for TRevision to evaluate; name the "
                "attribute that makes logits, network='net' for instance, or 'self'."
            ) from None


class RevisedTransition(nn.Module):
    """A matrix that was estimated once, and a trainable correction.

    Args:
        num_classes: Number of classes K.

    Example:
        >>> layer = RevisedTransition(2)
        >>> layer.set_estimate(torch.tensor([[0.75, 0.25], [0.5, 0.5]]))
        >>> layer().detach()
        tensor([[0.7500, 0.2500],
                [0.5000, 0.5000]])
    """

    estimate: Tensor

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.delta = nn.Parameter(torch.zeros(num_classes, num_classes))
        self.register_buffer("estimate", torch.zeros(num_classes, num_classes))

    @property
    def is_known(self) -> bool:
        """Whether there is an estimate."""
        return bool(self.estimate.any())

    def set_estimate(self, transition: Tensor) -> None:
        """Set the estimate; entries of zero become tiny ones, for a clamped entry would have no gradient."""
        self.estimate.copy_(_as_rows(transition))

    def forward(self) -> Tensor:
        """Return the matrix, (K, K) float32."""
        with torch.autocast(self.delta.device.type, enabled=False):
            # an average of the weights has zeros from before the estimate in it
            return _as_rows(_as_rows(self.estimate.float()) + self.delta.float())


def _as_rows(matrix: Tensor) -> Tensor:
    matrix = matrix.clamp(min=_LEAST)
    return matrix / matrix.sum(1, keepdim=True)


def _weighted(step: TrainingStep, log_p: Tensor, transition: Tensor) -> Tensor:
    """Return the inward losses times the weight of their label."""
    weight = log_p.exp() / noisy_probability(log_p, transition)
    if not step.target.is_floating_point():
        return expected(weight, step.target) * step.loss()
    by_label = weight * step.target.to(weight)
    total = by_label.sum(1, keepdim=True).clamp(min=torch.finfo(weight.dtype).tiny)
    return total.squeeze(1) * step.loss(target=by_label / total)

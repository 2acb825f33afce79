"""Sharpness-aware minimisation (SAM): follow the gradient of the worst point nearby, towards flat minima."""

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy
from torch import Tensor
from torch.optim import Optimizer

from medbolt.core import ObjectiveCallback, UserError
from medbolt.longtail.optimization.repetition import Repetition


class SharpnessAwareMinimization(Callback):
    r"""Let any optimizer step by the gradient at the point where the loss is about highest within a small radius.

    .. math:: w \leftarrow \operatorname{step}\!\big(w,\ \nabla L(w + \epsilon)\big), \qquad
        \epsilon = \rho\, \frac{\nabla L(w)}{\lVert \nabla L(w) \rVert_2}

    Just before an optimizer step the weights that the optimizer holds are moved by :math:`\epsilon`, the module's
    ``training_step`` runs again on the same batch, or on all batches that were accumulated, and the weights are put
    back; then Lightning clips the new gradient and the optimizer steps as ever. The norm is one over all its
    parameters.

    The second pass leaves no trace: it logs nothing, updates no metric of the module, and buffers, such as the
    statistics of batch norm, and random generators are as the first pass left them. It draws the random numbers that
    the first one drew, so dropout is the same. With :math:`\rho = 0` training is what it is without this callback.

    Args:
        rho: Radius :math:`\rho`, not negative. The paper's is 0.05; MONICA's grows from 0.05 to 0.5.

    Raises:
        ValueError: if ``rho`` is negative.
        UserError: at ``fit``, for manual optimization, for strategies other than one device and DDP (which shard what
            the norm is of), for a fused optimizer with a gradient scaler, and for an objective that keeps a memory of
            samples, which would be written twice; in training, for objectives, which know the last batch only, with
            ``accumulate_grad_batches``.

    State, cost: none to checkpoint. Training takes twice the time; a copy of weights and buffers, and the accumulated
    batches stay in memory. Under DDP gradients are averaged over processes in both passes, so that n processes do what
    one does with their batches together, each layer normalised within its process. Where the first gradient is zero or
    not finite, and in float16 where the second overflows, the first one is used.

    What else ``training_step`` does besides computing a loss, logging and updating metrics, it does twice, such as
    counting in Python or writing to a logger directly. The hooks around backward (``on_after_backward`` and kin) are
    called for the first pass only. With a callback that mixes images the mixtures of both passes are the same, dropout
    is not.

    Source: Foret et al., arXiv 2010.01412. The paper lets each accelerator perturb by its own gradient; here the
    gradient is that of all. MONICA moves the statistics of batch norm in both passes and compares SAM under another
    loss and schedule than the other methods. A closure that ran the training step twice would log twice, and count the
    gradients of accumulated batches double.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> callback = SharpnessAwareMinimization(rho=0.05)
        >>> trainer = Trainer(callbacks=[callback], accelerator="cpu", logger=False, enable_checkpointing=False)
    """

    def __init__(self, rho: float = 0.05) -> None:
        if rho < 0:
            raise ValueError(f"rho must not be negative, got {rho}")
        self.rho = rho
        self._repetition: Repetition | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Check that it can be done, and begin to remember batches."""
        self._check(trainer, pl_module)
        self._release()
        self._repetition = Repetition(pl_module)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        """Put the gradient of the perturbed weights in the place of that of the weights."""
        assert self._repetition is not None
        parameters = [p for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        try:
            norm = _norm([p.grad for p in parameters if p.grad is not None])
            # without gradients there is nothing to repeat, as where weight averaging refills batch norm
            if parameters and len(self._repetition) > 1 and (objectives := _objectives(trainer)):
                raise UserError(
                    f"{type(objectives[0]).__name__} knows one batch at a time, but SharpnessAwareMinimization repeats "
                    f"all {len(self._repetition)} that were accumulated; set accumulate_grad_batches to 1."
                )
            if len(self._repetition) and norm > 0 and norm.isfinite():
                self._perturbed_gradient(trainer, pl_module, optimizer, parameters, self.rho / norm)
        finally:
            self._repetition.clear()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Give the module its training step back."""
        self._release()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the module its training step back."""
        self._release()

    def _perturbed_gradient(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        optimizer: Optimizer,
        parameters: list[torch.nn.Parameter],
        step: Tensor,
    ) -> None:
        assert self._repetition is not None
        scaler: Any = getattr(trainer.precision_plugin, "scaler", None)
        scale = 1.0 if scaler is None else scaler.get_scale()
        weights = [p.detach().clone() for p in parameters]
        # in float16 the second pass may overflow, which the scaler, having looked at the first one, does not see
        gradients = [] if scaler is None else [p.grad.clone() for p in parameters if p.grad is not None]
        try:
            with torch.no_grad():
                for p in parameters:
                    p.add_(p.grad * step.to(p.grad))  # pyright: ignore[reportOptionalOperand, reportArgumentType]
            optimizer.zero_grad()
            with torch.enable_grad():
                for loss in self._repetition.losses(trainer):
                    pl_module.backward(loss / trainer.accumulate_grad_batches * scale)
        finally:
            with torch.no_grad():
                for p, value in zip(parameters, weights, strict=True):
                    p.copy_(value)
        if scaler is None:
            return
        found = [p.grad.div_(scale) for p in parameters if p.grad is not None]
        if not _norm(found).isfinite():
            for p, gradient in zip(parameters, gradients, strict=True):
                p.grad = gradient

    def _check(self, trainer: Trainer, pl_module: LightningModule) -> None:
        name, strategy = type(pl_module).__name__, trainer.strategy
        if not pl_module.automatic_optimization:
            raise UserError(
                f"{name} optimizes by itself (automatic_optimization is False), so SharpnessAwareMinimization cannot "
                "step in; take it off, or let Lightning optimize."
            )
        if not isinstance(strategy, SingleDeviceStrategy | DDPStrategy) or strategy.handles_gradient_accumulation:
            raise UserError(
                f"SharpnessAwareMinimization needs whole weights and gradients in each process, which "
                f"{type(strategy).__name__} does not keep; train with strategy='ddp' or on one device."
            )
        fused = any(getattr(optimizer, "_step_supports_amp_scaling", False) for optimizer in trainer.optimizers)
        if fused and getattr(trainer.precision_plugin, "scaler", None) is not None:
            raise UserError(
                "SharpnessAwareMinimization cannot see the gradients that a fused optimizer scales by itself; make the "
                "optimizer with fused=False, or train in precision 'bf16-mixed'."
            )
        for objective in _objectives(trainer):
            if objective.memory is not None:
                raise UserError(
                    f"{type(objective).__name__} remembers samples, which the second pass of "
                    "SharpnessAwareMinimization would write again; train with one of them."
                )

    def _release(self) -> None:
        if self._repetition is not None:
            self._repetition.remove()
        self._repetition = None


def _objectives(trainer: Trainer) -> list[ObjectiveCallback]:
    callbacks: list[Callback] = trainer.callbacks  # pyright: ignore[reportAttributeAccessIssue]
    return [callback for callback in callbacks if isinstance(callback, ObjectiveCallback)]


def _norm(tensors: list[Tensor]) -> Tensor:
    """Return the norm of all tensors together, (), in float32 at least; 0 for none."""
    norms = [torch.linalg.vector_norm(t, dtype=torch.promote_types(t.dtype, torch.float32)) for t in tensors]
    return torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])) if norms else torch.zeros(())

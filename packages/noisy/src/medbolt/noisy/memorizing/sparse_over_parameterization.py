"""SOP: explain wrong labels by two small numbers a sample and class, instead of by the network."""

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.second_view import ask_for_second_view, network_logits, second_view
from medbolt.core.objective.step import TrainingStep
from medbolt.core.randomness import derive_seed
from medbolt.noisy.class_count import class_count
from medbolt.noisy.memorizing.classes import as_distribution, as_logits, log_probability_of
from medbolt.noisy.one_class import OneClassTargets


class SparseOverParameterization(ObjectiveCallback):
    r"""Add to each prediction what the label has too much, learned for each sample (SOP; SOP+ with two extras).

    .. math::
        U_i = [u_i^2\, y_i]_0^1, \qquad V_i = [v_i^2 (1 - y_i)]_0^1, \qquad
        p'_i \propto [p_i + U_i - \mathrm{sg}(V_i)]_{10^{-4}}, \qquad
        \ell(p'_i, y_i) + \lVert \hat y_i + U_i - V_i - y_i \rVert^2

    y is the one-hot label, :math:`\hat y` the one-hot prediction, sg stops the gradient, :math:`[x]_a^b` clamps.
    :math:`u_i` (a number) and :math:`v_i` (one a class) start next to 0, so that gradient descent finds sparse ones:
    they take up wrong labels, and right ones are left to the network. ``memory["u"]``, ``memory["v"]`` hold them.

    They are trained here by plain SGD, each when its sample is seen, on the mean over the batch of all processes and
    accumulated batches; no optimizer of the module knows them. So two processes do what one does with the double batch.

    With ``consistency=0.9`` and ``balance=0.1``, SOP+:

    .. math::
        + 0.9\, \mathrm{KL}(\mathrm{sg}(p_i) \| p_i^{\text{second view}}) - 0.1 \sum_k \tfrac{1}{K} \log \bar p'_k

    where :math:`\bar p'` is the mean over the process's batch. A uniform mean is wrong for long-tailed classes.

    Args:
        lr_u: Learning rate of u, not negative. The authors use 1 for CIFAR-100 with symmetric noise, 0.1 with
            asymmetric.
        lr_v: Learning rate of v, not negative: 10, and 100.
        consistency: Weight of the agreement of two views, not negative; 0 needs no second view.
        balance: Weight of the balance of classes, not negative.
        strong: Makes the second view of a batch of the network's inputs; by default medbolt's data modules make one.
        seed: Seed of the first u and v, which are normal with standard deviation 1e-8.
        num_classes: Number of classes, where the data module does not tell.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`. It is given
            :math:`\log p'` as logits.
        network: Attribute of the network, which is given the second view.
        features: Dotted attribute of the layer of ``step.features``.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the data module does not know its training set, or nobody the number of classes; in
            training, if ``consistency`` finds no second view, or samples have several findings.

    State, cost: N x (C + 1) float32, merged across processes each epoch and kept in checkpoints; a small gradient of
    its own. With ``consistency`` a second pass through the network. What asks for the loss twice in a batch (a method
    with two networks, MixUp) belongs inward, before this one in the list of callbacks.

    Source: Liu et al., arXiv 2202.14026. The authors' code keeps u and v in optimizers of their own, whose gradients
    several processes would divide by their number. That the first view's p is a constant in the divergence is ours to
    say: our notes leave it open.

    Example:
        >>> callback = SparseOverParameterization(lr_u=1.0, lr_v=10.0)
    """

    def __init__(
        self,
        lr_u: float = 1.0,
        lr_v: float = 10.0,
        consistency: float = 0.0,
        balance: float = 0.0,
        strong: nn.Module | None = None,
        seed: int = 0,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if min(lr_u, lr_v, consistency, balance) < 0:
            raise ValueError(
                f"lr_u, lr_v, consistency and balance must not be negative, got {lr_u}, {lr_v}, {consistency} and "
                f"{balance}"
            )
        self.lr_u, self.lr_v, self.consistency, self.balance = lr_u, lr_v, consistency, balance
        self.strong, self.seed, self.num_classes = strong, seed, num_classes
        self._one_class = OneClassTargets(type(self).__name__)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; draw the first u and v."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if self.consistency:
            ask_for_second_view(self, trainer, self.strong)
        num_classes = class_count(self, self.num_classes, trainer, pl_module)
        memory = self.remember(trainer, u=torch.zeros(()), v=torch.zeros(num_classes))
        generator = torch.Generator().manual_seed(derive_seed(self.seed, 1))
        for name in ("u", "v"):
            memory[name].normal_(0, 1e-8, generator=generator)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses of the completed predictions; train u and v of the batch."""
        assert self.memory is not None
        self._one_class.require(step)
        num_classes = self.memory["v"].shape[1]
        index = step.index
        u, v = (self.memory.read(index, name).detach().requires_grad_() for name in ("u", "v"))
        label = as_distribution(step.target, num_classes)
        log_p = log_probability_of(self, step.logits, num_classes)
        p = log_p.exp()
        more = (u.square()[:, None] * label).clamp(0, 1)
        less = (v.square() * (1 - label)).clamp(0, 1)
        completed = (p + more - less.detach()).clamp(min=1e-4)
        completed = completed / completed.sum(1, keepdim=True)
        guess = as_distribution(p.argmax(1), num_classes)
        losses = step.loss(logits=as_logits(completed.log(), step.logits))
        losses = losses + (guess + more - less - label).square().sum(1)
        if self.balance:
            losses = losses - self.balance * completed.mean(0).log().mean()
        self._descend(step, index, u, v, losses)
        if self.consistency:
            view = second_view(self, step, self.strong)
            logits = network_logits(self, step, view, *step.inputs[1:])
            log_q = log_probability_of(self, logits, num_classes)
            losses = losses + self.consistency * (p.detach() * (log_p.detach() - log_q)).sum(1)
        return losses

    def _descend(self, step: TrainingStep, index: Tensor, u: Tensor, v: Tensor, losses: Tensor) -> None:
        # The gradient is taken here: no scaling for mixed precision is in it yet, and no averaging over processes.
        trainer: Any = step.module.trainer
        assert self.memory is not None
        parts = trainer.world_size * trainer.accumulate_grad_batches
        gradients = torch.autograd.grad(losses.mean() / parts, (u, v), retain_graph=True)
        # a sample that was drawn twice has the gradients of both, in one row of the batch
        place = (index[:, None] == index).int().argmax(1)
        grad_u, grad_v = (torch.zeros_like(g).index_add_(0, place, g)[place] for g in gradients)
        self.memory.write(index, u=u - self.lr_u * grad_u, v=v - self.lr_v * grad_v)

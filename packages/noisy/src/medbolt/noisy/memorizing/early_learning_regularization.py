"""ELR: keep the network at what it said of each sample early on, before it learned wrong labels by heart."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core.memory import SampleMemory
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.class_count import class_count
from medbolt.noisy.memorizing.classes import log_probability_of
from medbolt.noisy.one_class import OneClassTargets


class EarlyLearningRegularization(ObjectiveCallback):
    r"""Pull the predictions of a sample towards the running mean of the predictions it had so far (ELR).

    .. math::
        t_i \leftarrow \beta t_i + (1 - \beta) p_i, \qquad
        \ell_i + \lambda \log\left(1 - \langle t_i, p_i \rangle\right)

    Networks learn the right labels first. The term boosts the gradient of samples on which early predictions and label
    agree, and cancels it where they do not. It goes with any criterion and over other objectives. :math:`p` is clamped
    to [1e-4, 1 - 1e-4] (and made to sum to 1 again for :math:`t`), so that the term is above
    :math:`-9.3 \lambda`; the loss is negative in the end, so do not stop early by it.

    ``memory["target"]`` holds :math:`t`: once trained, a label that differs from its largest entry is suspicious.

    Args:
        weight: Weight :math:`\lambda` of the term, not negative. The authors use 3 for CIFAR-10 with symmetric noise, 1
            with asymmetric, 7 for CIFAR-100.
        momentum: :math:`\beta` in [0, 1). The authors use 0.7 for CIFAR-10, 0.9 with asymmetric noise and for
            CIFAR-100.
        num_classes: Number of classes, where the data module does not tell.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.
        features: Dotted attribute of the layer of ``step.features``.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the data module does not know its training set, or nobody the number of classes; in
            training, if samples have several findings.

    State, cost: N x C float32, merged across processes each epoch and kept in checkpoints; one softmax. Two processes
    do what one does with the double batch. What asks for the loss twice in a batch (a method with two networks, MixUp)
    belongs inward, before this one in the list of callbacks: else the mean is updated twice.

    Source: Liu et al., arXiv 2007.00151, eq. 6 and 7, with the clamping of the authors' code.

    Example:
        >>> callback = EarlyLearningRegularization(weight=3.0, momentum=0.7)
    """

    def __init__(
        self,
        weight: float = 3.0,
        momentum: float = 0.7,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if weight < 0 or not 0 <= momentum < 1:
            raise ValueError(f"weight must not be negative and momentum in [0, 1), got {weight} and {momentum}")
        self.weight, self.momentum, self.num_classes = weight, momentum, num_classes
        self._one_class = OneClassTargets(type(self).__name__)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept the criterion; begin with empty targets."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.remember(trainer, target=torch.zeros(class_count(self, self.num_classes, trainer, pl_module)))

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the regularization; update the targets of the batch."""
        assert self.memory is not None
        self._one_class.require(step)
        p = log_probability_of(self, step.logits, self.memory["target"].shape[1]).exp()
        target = updated_target(self.memory, "target", step.index, p, self.momentum)
        return step.loss() + self.weight * log_disagreement(target, p)


def updated_target(memory: SampleMemory, field: str, index: Tensor, p: Tensor, momentum: float) -> Tensor:
    """Move the remembered targets of a batch towards probabilities; return them, (B, C)."""
    p = p.detach().clamp(1e-4, 1 - 1e-4)
    target = momentum * memory.read(index, field) + (1 - momentum) * p / p.sum(1, keepdim=True)
    memory.write(index, **{field: target})
    return target


def log_disagreement(target: Tensor, p: Tensor) -> Tensor:
    r"""Return :math:`\log(1 - \langle t_i, p_i \rangle)`, (B,), of probabilities that are clamped."""
    return torch.log1p(-(target * p.clamp(1e-4, 1 - 1e-4)).sum(1))

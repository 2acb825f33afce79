"""VolMinNet: learn the transition matrix together with the network, and keep it as small as the labels allow."""

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.class_count import class_count
from medbolt.noisy.losses.targets import expected, log_probability
from medbolt.noisy.losses.transition import noisy_probability
from medbolt.noisy.one_class import OneClassTargets
from medbolt.noisy.transition.context import log_transition_error, require_classes
from medbolt.noisy.transition.step_options import StepOptions

_RIDGE = 1e-4  # on the diagonal of T, so that its determinant has a gradient where two rows have become equal


class VolMinNet(ObjectiveCallback):
    r"""Predict the noisy labels through a trainable transition matrix whose volume is minimised.

    .. math::
        \ell_i = -\log (T^\top p_i)_{y_i} + \lambda \log |\det T|, \qquad
        T = \operatorname{rownorm}\bigl(I + \sigma(w) \odot (1 - I)\bigr)

    Many pairs of matrix and prediction explain the noisy labels equally well; of these the one with the smallest matrix
    is the right one where clean probabilities are scattered enough, which needs no anchor points. The network's plain
    softmax predicts clean labels. To select a model by noisy validation labels compare them with :math:`T^\top p`, of
    which :attr:`transition` gives T.

    The loss replaces the module's criterion: objectives further in have no part in it. Soft targets count as the mean
    over labels drawn from them. What is trained is T, in the module's own optimizer, but without weight decay whatever
    the optimizer's (decay would draw T to uniform noise of its own), and with a learning rate of its own. With a
    criterion of ``reduction="sum"`` the volume counts once a sample.

    A network that memorises before T has moved leaves T at no noise at all, so start both together with an ordinary
    learning rate; with rare classes T may come to permute classes: look at it.

    Args:
        volume_weight: Weight :math:`\lambda` of the volume, not negative. The authors' 1e-4 decides little: on points
            in a plane with 40 % of the labels flipped to the next class T then went to no noise at all; 0.1 found it,
            and 0.3 made all its rows alike.
        initial: Start of all :math:`w`. At -2 a label is wrong with 0.12 / (1 + 0.12 (K - 1)) for each other class; the
            authors take -4.5 for 100 classes.
        transition_lr: Factor on the optimizer's learning rate for T, positive.
        num_classes: Number of classes K; by default what the data module or the module says.
        criterion: Attribute of the module's criterion; see :class:`~medbolt.core.ObjectiveCallback`.

    Raises:
        ValueError: if an argument is out of range.
        UserError: at ``fit``, if the number of classes is unknown, or no optimizer holds T; at a step, if the logits
            are not (B, K) or samples have several findings.

    State, cost: K x K parameters with the callback in checkpoints; a product with T and a determinant a step. Logs
    ``lnl/T_error`` each epoch where the data know the clean labels (:class:`~medbolt.noisy.NoisyLabels`).

    Source: Li et al., arXiv 2102.02400, eq. 4. As the authors do, the matrix has no weight decay; they give it an
    optimizer of its own, here it steps in the module's. LNMBench multiplies logits by T, where the paper multiplies
    probabilities.

    Example:
        >>> callback = VolMinNet(transition_lr=5.0)
    """

    def __init__(
        self,
        volume_weight: float = 1e-4,
        initial: float = -2.0,
        transition_lr: float = 1.0,
        num_classes: int | None = None,
        criterion: str = "criterion",
    ) -> None:
        super().__init__(criterion)
        if volume_weight < 0:
            raise ValueError(f"volume_weight must not be negative, got {volume_weight}")
        if transition_lr <= 0:
            raise ValueError(f"transition_lr must be positive, got {transition_lr}")
        self.volume_weight, self.initial, self.transition_lr = volume_weight, initial, transition_lr
        self.num_classes = num_classes
        self._one_class = OneClassTargets(type(self).__name__)
        self._layer: TransitionLayer | None = None
        self._step_options: StepOptions | None = None

    @property
    def transition(self) -> Tensor:
        """(K, K) float32: entry [i, j] is the learnt probability that class i is labelled j."""
        if self._layer is None:
            raise UserError("VolMinNet has no transition matrix before fit; call trainer.fit first.")
        with torch.no_grad():
            return self._layer().cpu()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Attach the matrix."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            count = class_count(self, self.num_classes, trainer, pl_module)
            self._layer = TransitionLayer(count, self.initial)
            self.attach(pl_module, "noise_transition", self._layer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the matrix out of weight decay."""
        super().on_train_start(trainer, pl_module)
        assert self._layer is not None
        self._step_options = StepOptions(trainer.optimizers, self._layer.parameters(), lr=self.transition_lr)
        self.undo_later(self._step_options.remove)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the corrected losses and the volume."""
        assert self._layer is not None
        self._one_class.require(step)
        require_classes("VolMinNet", step.logits, len(self._layer.weight))
        matrix = self._layer()
        noisy = noisy_probability(log_probability(step.logits), matrix)
        return -expected(noisy.log(), step.target) + self.volume_weight * log_volume(matrix)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log how wrong the matrix is, where the truth is known."""
        super().on_train_epoch_end(trainer, pl_module)
        log_transition_error(self.transition, trainer, pl_module)


def log_volume(transition: Tensor) -> Tensor:
    """Return the logarithm of the determinant's absolute value, with a gradient that stays finite where it vanishes.

    Example:
        >>> log_volume(torch.eye(3)), log_volume(torch.full((3, 3), 1 / 3)).isfinite()
        (tensor(0.0003), tensor(True))
    """
    return torch.linalg.slogdet(transition + _RIDGE * torch.eye(len(transition)).to(transition)).logabsdet


class TransitionLayer(nn.Module):
    """A trainable transition matrix: rows that sum to 1, each with its diagonal the largest.

    Args:
        num_classes: Number of classes K, at least 2.
        initial: Start of the parameters, the logits of off-diagonal entries relative to the diagonal.

    Example:
        >>> TransitionLayer(2, initial=0.0)().detach()
        tensor([[0.6667, 0.3333],
                [0.3333, 0.6667]])
    """

    diagonal: Tensor

    def __init__(self, num_classes: int, initial: float) -> None:
        super().__init__()
        if num_classes < 2:
            raise ValueError(f"num_classes must be at least 2, got {num_classes}")
        self.weight = nn.Parameter(torch.full((num_classes, num_classes), float(initial)))
        self.register_buffer("diagonal", torch.eye(num_classes), persistent=False)

    def forward(self) -> Tensor:
        """Return the matrix, (K, K) float32."""
        with torch.autocast(self.weight.device.type, enabled=False):
            relative = self.diagonal.float() + self.weight.float().sigmoid() * (1 - self.diagonal.float())
            return relative / relative.sum(1, keepdim=True)

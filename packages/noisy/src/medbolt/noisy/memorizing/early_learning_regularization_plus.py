"""ELR+: early-learning regularization of two networks whose running means are each other's memory, with MixUp."""

import math
from dataclasses import replace
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core.objective.mixing import Mix, MixedInputs
from medbolt.core.objective.mixup import drawn_mix
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.class_count import class_count
from medbolt.noisy.memorizing.averaged_network import AveragedNetwork
from medbolt.noisy.memorizing.classes import log_probability_of
from medbolt.noisy.memorizing.early_learning_regularization import log_disagreement, updated_target
from medbolt.noisy.one_class import OneClassTargets
from medbolt.noisy.selection.peer import PeerNetwork

_FIELDS = ("target", "peer_target")


class EarlyLearningRegularizationPlus(MixedInputs):
    r"""Train two networks with MixUp and ELR, each towards what the other one's weight average said (ELR+).

    .. math::
        t^k_i \leftarrow \beta t^k_i + (1 - \beta)\, \bar p^{\,\bar k}_i, \qquad
        q^k_i = l\, t^k_i + (1 - l)\, t^k_{\pi(i)}, \qquad
        \sum_{k = 1, 2} \ell^k_i + \lambda_s \log\left(1 - \langle q^k_i, p^k_i \rangle\right)

    :math:`p^k` and :math:`\ell^k` are network k's prediction and MixUp loss of the mixtures (see
    :class:`~medbolt.core.MixUp`); :math:`\bar p^{\,\bar k}` is what the running mean of the other network's weights
    says of the unmixed images, in evaluation mode. The module's own network is the one to deploy; the second is this
    callback's ``peer``. What the module logs as its loss is the sum of both.

    Args:
        weight: Weight :math:`\lambda` of the regularization, not negative.
        momentum: :math:`\beta` of the targets, in [0, 1).
        alpha: Parameter of MixUp's Beta distribution, positive.
        average_decay: Share of the running mean of weights that stays at each optimizer step, in [0, 1). The authors
            use 0.997, and 0.9999 for Clothing1M.
        average_ramp_steps: Optimizer steps until the decay is reached, by the factor
            :math:`e^{-5 (1 - s / S)^2}`; 0 reaches it at once, ``None`` after half of the run, which is about the
            authors' 40000 steps of 78000.
        ramp_steps: Optimizer steps in which :math:`\lambda_s` rises to :math:`\lambda` by the same factor; 0 begins
            with it, as for CIFAR-10; the authors use 40000 for CIFAR-100.
        peer: The second network, if it shall not be a copy of the first drawn anew.
        reinitialize: Dotted part of the copy to draw anew; ``""`` is all of it. For a pre-trained network name its
            head.
        seed: Seed of the copy's weights.
        num_classes: Number of classes, where the data module does not tell.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the network cannot be copied and drawn anew, the data module does not know its
            training set, or nobody the number of classes; in training, if samples have several findings.

    State, cost: 2 N x C float32; a second network, and a running mean of each. Two forward and backward passes and two
    forward passes a batch. All of it is kept in checkpoints with this callback. Processes mix within their own
    batches, so two processes do not do what one does with the double batch.

    Source: Liu et al., arXiv 2007.00151. The authors' code reweights the labels by :math:`q` for CIFAR-100; not so
    here. Buffers (of batch norm) are averaged as the weights are.

    Example:
        >>> callback = EarlyLearningRegularizationPlus(reinitialize="head")
    """

    def __init__(
        self,
        weight: float = 3.0,
        momentum: float = 0.7,
        alpha: float = 1.0,
        average_decay: float = 0.997,
        average_ramp_steps: int | None = None,
        ramp_steps: int = 0,
        peer: nn.Module | None = None,
        reinitialize: str = "",
        seed: int = 0,
        num_classes: int | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network)
        if min(weight, ramp_steps, average_ramp_steps or 0) < 0 or alpha <= 0:
            raise ValueError(
                "weight, ramp_steps and average_ramp_steps must not be negative and alpha positive, got "
                f"{weight}, {ramp_steps}, {average_ramp_steps} and {alpha}"
            )
        if not (0 <= momentum < 1 and 0 <= average_decay < 1):
            raise ValueError(f"momentum and average_decay must be in [0, 1), got {momentum} and {average_decay}")
        self.weight, self.momentum, self.alpha, self.num_classes = weight, momentum, alpha, num_classes
        self.average_decay, self.average_ramp_steps, self.ramp_steps = average_decay, average_ramp_steps, ramp_steps
        self._one_class = OneClassTargets(type(self).__name__)
        self._peer = PeerNetwork(peer, reinitialize, seed)
        self._averages: list[AveragedNetwork] = []  # of the module's network, of the peer
        self._averaged_step = 0  # optimizer steps that the averages have seen
        self._has_averages = False  # from a checkpoint
        self._step = self._seen = 0  # batches that stepped: with two optimizers the trainer counts each twice
        self._average_ramp = 0.0
        self._unmixed: Tensor | None = None

    @property
    def peer(self) -> nn.Module | None:
        """The peer network, from the start of ``fit`` on."""
        return self._peer.network

    @property
    def averages(self) -> list[nn.Module]:
        """The running means of the module's network and of the peer, from the start of ``fit`` on."""
        return [average.network for average in self._averages]

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return one weight and one permutation for the batch."""
        return drawn_mix(self.alpha, size, device)

    def combine(self, images: Tensor, mix: Mix) -> Tensor:
        """Return the mixtures; keep the images for the averages, which take the last optimizer step's weights in."""
        # here, before the batch's first forward pass, buffers too are equal on all processes
        if self._averaged_step != self._step:
            for average in self._averages:
                average.update(self.average_decay * ramp_up(self._step, self._average_ramp))
            self._averaged_step = self._step
        self._unmixed = images
        return super().combine(images, mix)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return both networks' losses of the mixtures, with the regularization; update the targets of the batch."""
        assert self.memory is not None
        self._one_class.require(step)
        mix, num_classes = self.mix_of(step), self.memory["target"].shape[1]
        share = mix.target_weight[:, None]
        weight = self.weight * ramp_up(self._step, self.ramp_steps)
        losses = torch.zeros((), device=step.logits.device)
        networks = (step.logits, self._peer.logits(step))
        for field, logits, teacher in zip(_FIELDS, networks, reversed(self._averages), strict=True):
            with torch.no_grad():
                said = teacher.network(self._unmixed, *step.inputs[1:]).reshape(step.logits.shape)
            p = log_probability_of(self, said, num_classes).exp()
            target = updated_target(self.memory, field, step.index, p, self.momentum)
            target = share * target + (1 - share) * target[mix.partner]
            p = log_probability_of(self, logits, num_classes).exp()
            its = replace(step, logits=logits, is_own=step.is_own and logits is step.logits)
            losses = losses + super().objective(its) + weight * log_disagreement(target, p)
        return losses

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Intercept criterion and network; make the peer, the averages and empty targets."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        empty = torch.zeros(class_count(self, self.num_classes, trainer, pl_module))
        self.remember(trainer, **dict.fromkeys(_FIELDS, empty))
        peer = self._peer.make(pl_module, self.network, keep=trainer.global_step > 0)
        self.attach(pl_module, "peer_network", peer)
        self._averages = [AveragedNetwork(pl_module.get_submodule(self.network)), AveragedNetwork(peer)]
        self._averaged_step = self._step = 0
        self._has_averages = False

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin the averages with the networks as all processes start with them."""
        super().on_train_start(trainer, pl_module)
        self._peer.warn_if_late(type(self).__name__, trainer.current_epoch)
        half = trainer.estimated_stepping_batches / 2
        default = half if math.isfinite(half) else 40_000
        self._average_ramp = default if self.average_ramp_steps is None else self.average_ramp_steps
        for average in self._averages:
            average.match()
            if not self._has_averages:
                average.update(decay=0.0)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Begin to intercept."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop intercepting; forget the images."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._unmixed = None
        self._step += trainer.global_step > self._seen

    def state_dict(self) -> dict[str, Any]:
        """Return the averages besides epoch, memory and peer."""
        averages = [average.network.state_dict() for average in self._averages]
        return super().state_dict() | {"averages": averages, "averaged_step": self._averaged_step, "step": self._step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        super().load_state_dict(state_dict)
        self._peer.is_new = False
        self._averaged_step, self._step, self._has_averages = state_dict["averaged_step"], state_dict["step"], True
        for average, saved in zip(self._averages, state_dict["averages"], strict=True):
            average.network.load_state_dict(saved)


def ramp_up(step: float, length: float) -> float:
    """Return a factor that rises from e^-5 to 1 in so many steps.

    Example:
        >>> round(ramp_up(0, 10), 4), round(ramp_up(5, 10), 4), ramp_up(10, 10), ramp_up(0, 0)
        (0.0067, 0.2865, 1.0, 1.0)
    """
    return math.exp(-5 * (1 - min(step / length, 1.0)) ** 2) if length else 1.0

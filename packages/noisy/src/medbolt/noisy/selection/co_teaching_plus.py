"""Co-teaching+: co-teaching among the samples that the two networks disagree about."""

from torch import Tensor, nn

from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.selection.peer import PeerNetwork
from medbolt.noisy.selection.probabilities import log_probabilities
from medbolt.noisy.selection.small_loss import Scope, SmallLossSelection


class CoTeachingPlus(SmallLossSelection):
    r"""Co-teach on the samples that two networks predict differently, which keeps the networks apart.

    .. math::
        \frac{1}{n} \sum_{i \in I_2} \ell^1_i + \frac{1}{n} \sum_{i \in I_1} \ell^2_i, \qquad
        I_1, I_2 \subset D = \{i : \arg\max p^1_i \ne \arg\max p^2_i\}

    :math:`I_k` are the :math:`n = \max(1, \lfloor R(t) |D| \rfloor)` samples of D of smallest loss for network k, with
    the schedule R(t) of :class:`~medbolt.noisy.SmallLossSelection`. In the first epochs D is the whole batch. Where the
    networks agree on all samples, both learn from all of them.

    Args:
        forget_rate: Share of samples to leave out in the end, in [0, 1): the rate of the noise.
        warmup_epochs: Epochs of plain co-teaching. The authors take 20 for CIFAR-10, 5 for CIFAR-100 and 100 for
            Tiny-ImageNet, LNMBench 5.
        gradual_epochs: Epochs until that share is reached.
        exponent: Exponent of the epoch in the schedule, positive.
        scope: Rank the batch of one process, ``"local"``, or of all together, ``"global"``.
        peer: The second network, if it shall not be a copy of the first drawn anew.
        reinitialize: Dotted part of the copy to draw anew; ``""`` is all of it.
        seed: Seed of the copy's weights.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose inputs the peer is given too.

    Shapes:
        logits (B, C), or (B,) and (B, 1) for two classes; one class a sample.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the network cannot be copied and drawn anew; in training, if samples have several
            findings.

    State, cost: a second network, kept in checkpoints with this callback, and its forward and backward pass.

    Source: Yu et al., arXiv 1901.04215. The authors' code, and LNMBench's, applies softmax twice and divides by n
    twice; here the loss is the criterion's, of logits, and its mean. Their code learns from whole batches in which the
    networks agree in the first 5000 steps only, and from nothing later.

    Example:
        >>> callback = CoTeachingPlus(forget_rate=0.4, warmup_epochs=5)
    """

    def __init__(
        self,
        forget_rate: float,
        warmup_epochs: int = 5,
        gradual_epochs: int = 10,
        exponent: float = 1.0,
        scope: Scope = "local",
        peer: nn.Module | None = None,
        reinitialize: str = "",
        seed: int = 0,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(forget_rate, gradual_epochs, exponent, scope, criterion, network)
        if warmup_epochs < 0:
            raise ValueError(f"warmup_epochs must not be negative, got {warmup_epochs}")
        self.warmup_epochs = warmup_epochs
        self._peer = PeerNetwork(peer, reinitialize, seed)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return both networks' losses of the samples chosen for them."""
        self._one_class.require(step)
        peer_logits = self.peer_logits(step)
        first, second = step.loss(), step.loss(logits=peer_logits)
        if step.module.current_epoch < self.warmup_epochs:
            return self.exchange(step, first, second)
        predictions = [log_probabilities(logits.detach()).argmax(1) for logits in (step.logits, peer_logits)]
        return self.exchange(step, first, second, candidates=predictions[0] != predictions[1])

"""JoCoR: two networks that learn together from the samples on which they agree with the labels and each other."""

from torch import Tensor, nn

from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.selection.peer import PeerNetwork
from medbolt.noisy.selection.probabilities import log_probabilities
from medbolt.noisy.selection.small_loss import Scope, SmallLossSelection
from medbolt.noisy.selection.smallest import weighted


class JoCoR(SmallLossSelection):
    r"""Joint training with co-regularization: one loss of two networks, which also pulls them together.

    .. math::
        \ell_i = (1 - \lambda) (\ell^1_i + \ell^2_i) + \lambda \left(\mathrm{KL}(p^1_i \| p^2_i) +
        \mathrm{KL}(p^2_i \| p^1_i)\right)

    Both networks learn from the :math:`n = \max(1, \lfloor R(t) B \rfloor)` samples for which this is smallest, with
    the schedule R(t) of :class:`~medbolt.noisy.SmallLossSelection`.

    Args:
        forget_rate: Share of samples to leave out in the end, in [0, 1): the rate of the noise, half of it for
            asymmetric noise.
        co_regularization: Weight :math:`\lambda` of the divergence, in [0, 1). 0.1 is the default of the authors' code
            and of LNMBench. The authors' README advises 0.5 to 0.9 (0.9 for CIFAR-10, 0.65 under 80 % noise; 0.85 for
            CIFAR-100), and to tune it anew for residual networks and normalised inputs.
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

    Source: Wei et al., arXiv 2003.02752. LNMBench's cross entropy is by mistake the mean of the batch, so that its
    ranking is by the divergence alone and mislabelled samples train the networks; here it is per sample.

    Example:
        >>> callback = JoCoR(forget_rate=0.4, co_regularization=0.5)
    """

    def __init__(
        self,
        forget_rate: float,
        co_regularization: float = 0.1,
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
        if not 0 <= co_regularization < 1:
            raise ValueError(f"co_regularization must be in [0, 1), got {co_regularization}")
        self.co_regularization = co_regularization
        self._peer = PeerNetwork(peer, reinitialize, seed)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the joint losses of the samples kept."""
        self._one_class.require(step)
        peer_logits = self.peer_logits(step)
        labels = step.loss() + step.loss(logits=peer_logits)
        divergence = symmetric_divergence(step.logits, peer_logits)
        losses = (1 - self.co_regularization) * labels + self.co_regularization * divergence
        weights = self.weights(step, losses)
        self.select(step, weights)
        return weighted(losses, weights)


def symmetric_divergence(first: Tensor, second: Tensor) -> Tensor:
    """Return the sum of the Kullback-Leibler divergences both ways, (B,), of two networks' logits."""
    log_p, log_q = log_probabilities(first), log_probabilities(second)
    return ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)

"""Co-teaching: two networks, each of which learns from the samples the other one finds easy."""

from torch import Tensor, nn

from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.selection.peer import PeerNetwork
from medbolt.noisy.selection.small_loss import Scope, SmallLossSelection


class CoTeaching(SmallLossSelection):
    r"""Train two networks that pick each other's samples, so that neither confirms its own errors.

    .. math:: \frac{1}{n} \sum_{i \in I_2} \ell^1_i + \frac{1}{n} \sum_{i \in I_1} \ell^2_i

    :math:`I_k` are the :math:`n = \max(1, \lfloor R(t) B \rfloor)` samples of smallest loss for network k, with the
    schedule R(t) of :class:`~medbolt.noisy.SmallLossSelection`. The module's own network is the one to deploy; the
    second is this callback's ``peer``. What the module logs as its loss is the sum of both.

    The choice is detached, so one optimizer over both networks takes the very steps of two. Clipping by the norm is the
    exception: it sees one gradient of both.

    Args:
        forget_rate: Share of samples to leave out in the end, in [0, 1): the rate of the noise.
        gradual_epochs: Epochs until that share is reached.
        exponent: Exponent of the epoch in the schedule, positive.
        scope: Rank the batch of one process, ``"local"``, or of all together, ``"global"``.
        peer: The second network, if it shall not be a copy of the first drawn anew.
        reinitialize: Dotted part of the copy to draw anew; ``""`` is all of it. For a pre-trained network name its head
            (two that start alike but for the head choose more alike).
        seed: Seed of the copy's weights.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose inputs the peer is given too.

    Raises:
        ValueError: if an argument is out of its range.
        UserError: at ``fit``, if the network cannot be copied and drawn anew.

    State, cost: a second network, kept in checkpoints with this callback, and its forward and backward pass.

    Source: Han et al., arXiv 1804.06872. The authors train with Adam and
    :class:`~medbolt.noisy.CoTeachingSchedule`, and use two optimizers and two backward passes.

    Example:
        >>> callback = CoTeaching(forget_rate=0.4, reinitialize="head")
    """

    def __init__(
        self,
        forget_rate: float,
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
        self._peer = PeerNetwork(peer, reinitialize, seed)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return both networks' losses of the samples chosen for them."""
        return self.exchange(step, step.loss(), step.loss(logits=self.peer_logits(step)))

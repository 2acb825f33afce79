"""CoDis: co-teaching that prefers samples on which the two networks still discuss."""

import math

import torch
from torch import Tensor, nn

from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.selection.peer import PeerNetwork
from medbolt.noisy.selection.probabilities import log_probabilities
from medbolt.noisy.selection.small_loss import Scope, SmallLossSelection


class CoDis(SmallLossSelection):
    r"""Co-teach with a loss that rewards disagreement, so that possibly clean samples are kept while learned.

    .. math::
        \tilde\ell^1_i = \ell^1_i - \lambda\, \mathrm{JS}(p^1_i, p^2_i), \qquad
        \frac{1}{n} \sum_{i \in I_2} \tilde\ell^1_i + \frac{1}{n} \sum_{i \in I_1} \tilde\ell^2_i

    :math:`I_k` are the :math:`n = \max(1, \lfloor R(t) B \rfloor)` samples of smallest :math:`\tilde\ell^k_i`, with the
    schedule R(t) of :class:`~medbolt.noisy.SmallLossSelection`. In each network's loss the other one's
    probabilities are constants.

    Args:
        forget_rate: Share of samples to leave out in the end, in [0, 1): the rate of the noise.
        divergence_weight: Weight :math:`\lambda` of the Jensen-Shannon divergence, not negative. 0.15 is the default of
            LNMBench's code.
        compat: Use the divergence of the authors' code, :math:`\frac{1}{2}\mathrm{KL}(m \| p^1) + \frac{1}{2}
            \mathrm{KL}(m \| p^2)` with the mean m of both. As it has no upper bound and is subtracted, the loss has no
            lower one: only to reproduce published numbers.
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

    Source: Xia et al., ICCV 2023. The authors' code and LNMBench's swap the arguments of the two Kullback-Leibler
    divergences (see ``compat``); here it is Jensen-Shannon's, between 0 and log 2. As in the authors' code each network
    sees the gradient of its own loss only; in LNMBench both divergences reach both.

    Example:
        >>> callback = CoDis(forget_rate=0.4, divergence_weight=0.15)
    """

    def __init__(
        self,
        forget_rate: float,
        divergence_weight: float = 0.15,
        compat: bool = False,
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
        if divergence_weight < 0:
            raise ValueError(f"divergence_weight must not be negative, got {divergence_weight}")
        self.divergence_weight = divergence_weight
        self.divergence = swapped_divergence if compat else jensen_shannon_divergence
        self._peer = PeerNetwork(peer, reinitialize, seed)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return both networks' losses of the samples chosen for them."""
        self._one_class.require(step)
        peer_logits = self.peer_logits(step)
        log_p, log_q = log_probabilities(step.logits), log_probabilities(peer_logits)
        first = step.loss() - self.divergence_weight * self.divergence(log_p, log_q.detach())
        second = step.loss(logits=peer_logits) - self.divergence_weight * self.divergence(log_q, log_p.detach())
        return self.exchange(step, first, second)


def jensen_shannon_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence of log-probabilities, (B,), in [0, log 2]."""
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_p.exp() * (log_p - log_mean) + log_q.exp() * (log_q - log_mean)).sum(1) / 2


def swapped_divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return the mean Kullback-Leibler divergence of the mean distribution from both, (B,), not negative."""
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    return (log_mean.exp() * (log_mean - (log_p + log_q) / 2)).sum(1)

"""Repeat-factor sampling: samples of rare classes several times an epoch, all others once."""

import math

import torch
from torch import Tensor

from medbolt.core import EpochSampler
from medbolt.core.randomness import derive_seed
from medbolt.longtail.samplers.factory import Tail


class RepeatFactorSampler(EpochSampler):
    r"""Repeat each sample by the factor of its rarest class; no sample is left out.

    .. math:: r_i = \max_{c \in Y_i} \max\left(1, \sqrt{t / f_c}\right), \qquad f_c = n_c / N

    A sample is drawn :math:`\lfloor r_i \rfloor` or :math:`\lceil r_i \rceil` times an epoch, :math:`r_i` times on
    average, and an epoch always has :math:`\sum_i r_i` draws, rounded up; for that a single sample may be drawn once
    more. Made for multi-label targets; a sample without labels is drawn once.

    Args:
        targets: (N,) int64 class indices or (N, C) labels.
        seed: Seed of the order; the same on every process.
        num_replicas: Number of processes.
        rank: This process.
        tail: What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`.
        threshold: Frequency t, positive: classes rarer than that are repeated. LVIS, with 1203 classes, takes 0.001
            (**unverified**); some ten classes want 0.1.

    Raises:
        ValueError: if ``threshold`` is not positive.

    Source: Gupta et al., arXiv 1908.03195. Public code rounds each sample by itself, so that epochs differ in length;
    here the remainders are rounded together (systematic sampling of a random order), with the same mean.

    Example:
        >>> sampler = RepeatFactorSampler(torch.tensor([0] * 96 + [1] * 4), threshold=0.16)
        >>> len(sampler), sum(position >= 96 for position in sampler)  # the four twice
        (104, 8)
    """

    def __init__(
        self,
        targets: Tensor,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        tail: Tail = "uneven",
        threshold: float = 0.1,
    ) -> None:
        super().__init__(range(len(targets)), True, seed, num_replicas, rank, tail)
        if threshold <= 0:
            raise ValueError(f"threshold must be positive, got {threshold}")
        self.factors = repeat_factors(targets, threshold)

    @property
    def epoch_size(self) -> int:
        """Number of draws of an epoch over all processes, before the tail is treated."""
        return math.ceil(self.factors.sum().item() - 1e-6)

    def order(self) -> Tensor:
        """Return the positions of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        shuffled = torch.randperm(len(self.factors), generator=generator)
        ends = self.factors[shuffled].cumsum(0)
        ends *= self.epoch_size / ends[-1]
        ends[-1] = self.epoch_size
        offset = torch.rand((), generator=generator, dtype=torch.float64)
        ticks = (ends + offset).floor().long()
        repeats = ticks.diff(prepend=ticks.new_zeros(1))
        drawn = shuffled.repeat_interleave(repeats)
        return drawn[torch.randperm(len(drawn), generator=generator)]


def repeat_factors(targets: Tensor, threshold: float) -> Tensor:
    """Return how often to draw each sample in an epoch, (N,) float64.

    Example:
        >>> repeat_factors(torch.tensor([0] * 99 + [1]), threshold=0.04)[-2:]
        tensor([1., 2.], dtype=torch.float64)
    """
    counts = torch.bincount(targets) if targets.ndim == 1 else (targets > 0.5).sum(0)
    factors = (threshold * len(targets) / counts.double()).sqrt().clamp(min=1)
    if targets.ndim == 1:
        return factors[targets]
    return torch.where(targets > 0.5, factors, 1.0).amax(1)

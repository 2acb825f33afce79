"""Reverse sampling: the rarer a class, the more often it is drawn."""

import torch
from torch import Tensor

from medbolt.core import EpochSampler
from medbolt.core.randomness import derive_seed
from medbolt.longtail.samplers.class_members import ClassMembers
from medbolt.longtail.samplers.factory import Tail


class ReverseSampler(EpochSampler):
    r"""Draw a class with probability inverse to its size, then any of its samples, with replacement.

    .. math:: q_c = n_c^{-1} / \textstyle\sum_k n_k^{-1}

    over the classes with samples. So the tail is drawn more often than the head: it is made for the second of two
    branches, one that looks at the tail; for training by itself take ``ClassBalancedSampler``. An epoch has as many
    draws as there are samples. Multi-label targets are drawn label by label, those without any as one more class.

    Args:
        targets: (N,) int64 class indices or (N, C) labels.
        seed: Seed of the draws; the same on every process.
        num_replicas: Number of processes.
        rank: This process.
        tail: What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`.

    Source: BBN, Zhou et al., arXiv 1912.02413. MONICA's BBN draws classes equally instead.

    Example:
        >>> sampler = ReverseSampler(torch.tensor([0] * 90 + [1] * 10))
        >>> sum(position >= 90 for position in sampler)  # 90 on average: 9 to 1
        93
    """

    def __init__(
        self, targets: Tensor, seed: int = 0, num_replicas: int = 1, rank: int = 0, tail: Tail = "uneven"
    ) -> None:
        super().__init__(range(len(targets)), True, seed, num_replicas, rank, tail)
        self.members = ClassMembers(targets)

    def order(self) -> Tensor:
        """Return the positions of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        sizes = self.members.sizes.double()
        return self.members.draw((sizes > 0) / sizes.clamp(min=1), self.epoch_size, generator)

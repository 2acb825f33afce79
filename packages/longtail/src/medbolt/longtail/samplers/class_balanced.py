"""Class-balanced sampling: every class as often as any other."""

import torch
from torch import Tensor

from medbolt.core import EpochSampler
from medbolt.core.randomness import derive_seed
from medbolt.longtail.samplers.class_members import ClassMembers
from medbolt.longtail.samplers.factory import Tail


class ClassBalancedSampler(EpochSampler):
    r"""Draw a class with equal probability, then any of its samples, with replacement.

    .. math:: q_c = 1 / C

    over the classes with samples. An epoch has as many draws as there are samples. Multi-label targets are drawn label
    by label, those without any as one more class.

    Args:
        targets: (N,) int64 class indices or (N, C) labels.
        seed: Seed of the draws; the same on every process.
        num_replicas: Number of processes.
        rank: This process.
        tail: What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`.

    Source: the instance/class-balanced scheme of Kang et al., arXiv 1910.09217; MONICA's RS. Public code draws from
    each process's own generator; here all processes share one order, a function of (seed, epoch).

    Example:
        >>> sampler = ClassBalancedSampler(torch.tensor([0] * 90 + [1] * 10))
        >>> sum(position >= 90 for position in sampler)  # 50 on average, not 10
        45
    """

    def __init__(
        self, targets: Tensor, seed: int = 0, num_replicas: int = 1, rank: int = 0, tail: Tail = "uneven"
    ) -> None:
        super().__init__(range(len(targets)), True, seed, num_replicas, rank, tail)
        self.members = ClassMembers(targets)

    def order(self) -> Tensor:
        """Return the positions of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return self.members.draw((self.members.sizes > 0).double(), self.epoch_size, generator)

"""Square-root sampling: half-way between the data's frequencies and equal ones."""

import torch
from torch import Tensor

from medbolt.core import EpochSampler
from medbolt.core.randomness import derive_seed
from medbolt.longtail.samplers.class_members import ClassMembers
from medbolt.longtail.samplers.factory import Tail


class SquareRootSampler(EpochSampler):
    r"""Draw a class with probability proportional to the root of its size, then any of its samples, with replacement.

    .. math:: q_c = \sqrt{n_c} / \textstyle\sum_k \sqrt{n_k}

    An epoch has as many draws as there are samples. Multi-label targets are drawn label by label, those without any as
    one more class.

    Args:
        targets: (N,) int64 class indices or (N, C) labels.
        seed: Seed of the draws; the same on every process.
        num_replicas: Number of processes.
        rank: This process.
        tail: What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`.

    Source: Kang et al., arXiv 1910.09217.

    Example:
        >>> sampler = SquareRootSampler(torch.tensor([0] * 90 + [1] * 10))
        >>> sum(position >= 90 for position in sampler)  # 25 on average: 3 to 1
        23
    """

    def __init__(
        self, targets: Tensor, seed: int = 0, num_replicas: int = 1, rank: int = 0, tail: Tail = "uneven"
    ) -> None:
        super().__init__(range(len(targets)), True, seed, num_replicas, rank, tail)
        self.members = ClassMembers(targets)

    def order(self) -> Tensor:
        """Return the positions of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return self.members.draw(self.members.sizes.double().sqrt(), self.epoch_size, generator)

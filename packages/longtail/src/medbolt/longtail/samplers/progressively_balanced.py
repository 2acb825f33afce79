"""Progressively balanced sampling: from the data's frequencies to equal ones over the epochs."""

import torch
from torch import Tensor

from medbolt.core import EpochSampler
from medbolt.core.randomness import derive_seed
from medbolt.longtail.samplers.class_members import ClassMembers
from medbolt.longtail.samplers.factory import Tail


class ProgressivelyBalancedSampler(EpochSampler):
    r"""Draw a class with a probability that moves from its frequency to equality, then any of its samples.

    .. math:: q_c(t) = (1 - t/T)\, \frac{n_c}{\sum_k n_k} + \frac{t}{T} \frac{1}{C}

    over the classes with samples, with replacement; from epoch T on all are equal. An epoch has as many draws as there
    are samples. Multi-label targets are drawn label by label, those without any as one more class.

    Args:
        targets: (N,) int64 class indices or (N, C) labels.
        seed: Seed of the draws; the same on every process.
        num_replicas: Number of processes.
        rank: This process.
        tail: What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`.
        epochs: Number T of epochs until all classes are equal, at least 1; usually the trainer's ``max_epochs``.

    Raises:
        ValueError: if ``epochs`` is below 1.

    Source: Kang et al., arXiv 1910.09217.

    Example:
        >>> sampler = ProgressivelyBalancedSampler(torch.tensor([0] * 90 + [1] * 10), epochs=10)
        >>> sampler.set_epoch(5)
        >>> sum(position >= 90 for position in sampler)  # 30 on average
        29
    """

    def __init__(
        self,
        targets: Tensor,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        tail: Tail = "uneven",
        epochs: int = 50,
    ) -> None:
        super().__init__(range(len(targets)), True, seed, num_replicas, rank, tail)
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, got {epochs}")
        self.members = ClassMembers(targets)
        self.epochs = epochs

    def order(self) -> Tensor:
        """Return the positions of this epoch."""
        sizes = self.members.sizes.double()
        progress = min(self.epoch / self.epochs, 1.0)
        equal = (sizes > 0) / (sizes > 0).sum()
        probability = (1 - progress) * sizes / sizes.sum() + progress * equal
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return self.members.draw(probability, self.epoch_size, generator)

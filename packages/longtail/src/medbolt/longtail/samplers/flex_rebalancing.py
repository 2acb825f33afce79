"""Flexible re-balancing: what is recognised badly is drawn more often."""

from collections.abc import Sequence

import torch
from torch import Tensor

from medbolt.core import EpochSampler
from medbolt.core.errors import UserError
from medbolt.core.randomness import derive_seed
from medbolt.longtail.samplers.class_members import ClassMembers
from medbolt.longtail.samplers.factory import Tail


class FlexRebalancingSampler(EpochSampler):
    r"""Draw a class by its size over its validation recall, then any of its samples, with replacement.

    .. math:: q_c \propto \frac{n_c}{\max(\mathrm{recall}_c, \epsilon)}

    Until :meth:`set_class_recall` is called, usually by
    :class:`~medbolt.longtail.RecallFeedback` after each validation, classes are drawn by their size. An epoch has as
    many draws as there are samples.

    Args:
        targets: (N,) int64 class indices.
        seed: Seed of the draws; the same on every process.
        num_replicas: Number of processes.
        rank: This process.
        tail: What happens when an epoch does not divide by the processes, see :class:`~medbolt.core.EpochSampler`.
        floor: Smallest recall :math:`\epsilon` to divide by, in (0, 1]; a class is drawn at most 1/floor times as often
            as one of perfect recall.

    Raises:
        ValueError: if ``floor`` is outside (0, 1].
        UserError: for multi-label targets.

    State: the recalls, which ``RecallFeedback`` keeps in checkpoints.

    Source: FlexRS as MONICA, arXiv 2410.02010, has it, which divides by zero for a class without recall. The method of
    that name, arXiv 2204.03161, has three stages; its own formulas are **unverified** here.

    Example:
        >>> sampler = FlexRebalancingSampler(torch.tensor([0] * 90 + [1] * 10))
        >>> sampler.set_class_recall([1.0, 0.25])
        >>> sum(position >= 90 for position in sampler)  # 31 on average: 90 to 10/0.25
        27
    """

    def __init__(
        self,
        targets: Tensor,
        seed: int = 0,
        num_replicas: int = 1,
        rank: int = 0,
        tail: Tail = "uneven",
        floor: float = 0.05,
    ) -> None:
        super().__init__(range(len(targets)), True, seed, num_replicas, rank, tail)
        if not 0 < floor <= 1:
            raise ValueError(f"floor must be in (0, 1], got {floor}")
        if targets.ndim != 1:
            raise UserError(
                "FlexRebalancingSampler needs one class a sample, got multi-label targets; take RepeatFactorSampler."
            )
        self.members = ClassMembers(targets)
        self.floor = floor
        self.recall = torch.ones(len(self.members.sizes), dtype=torch.float64)

    def set_class_recall(self, recall: Sequence[float] | Tensor) -> None:
        """Use these recalls from the next epoch on; a NaN, of a class that was not evaluated, counts as one.

        Args:
            recall: (C,) in [0, 1], the same on every process. Classes beyond the last one with samples are ignored.

        Raises:
            UserError: if there are fewer recalls than classes.
        """
        values = torch.as_tensor(recall, dtype=torch.float64).cpu()
        if len(values) < len(self.members.sizes):
            raise UserError(
                f"FlexRebalancingSampler got {len(values)} recalls for {len(self.members.sizes)} classes; give one a "
                "class."
            )
        self.recall = values[: len(self.members.sizes)].nan_to_num(1.0)

    def order(self) -> Tensor:
        """Return the positions of this epoch."""
        generator = torch.Generator().manual_seed(derive_seed(self.seed, self.epoch))
        return self.members.draw(self.members.sizes / self.recall.clamp(min=self.floor), self.epoch_size, generator)

"""Which sample of the data set a loader yields when, on every process."""

from collections.abc import Iterator
from itertools import count
from typing import Any

from torch.utils.data import BatchSampler, DataLoader, DistributedSampler, SequentialSampler

from medbolt.core.errors import UserError


def positions(loader: Any, processes: int) -> Iterator[int]:
    """Yield the position in the data set of each sample that ``loader`` gives to this process.

    On one process a loader whose order cannot be known is numbered as it comes.

    Args:
        loader: What Lightning iterates over.
        processes: Number of processes.

    Returns:
        Positions, in the loader's order.

    Raises:
        UserError: if there are several processes and the loader's order cannot be known.

    Example:
        >>> sampler = DistributedSampler(range(5), num_replicas=2, rank=1, shuffle=False)
        >>> list(positions(DataLoader(range(5), sampler=sampler), processes=2))  # padded with position 0
        [1, 3, 0]
    """
    batches = getattr(loader, "batch_sampler", None)
    batches = getattr(batches, "_batch_sampler", batches)  # Lightning wraps it when predicting
    if isinstance(loader, DataLoader) and type(batches) is BatchSampler and _is_fixed(batches.sampler):
        return iter(batches.sampler)
    if processes == 1:
        return count()
    raise UserError(
        f"which samples {type(loader).__name__} gives to which of {processes} processes cannot be known; yield batches "
        "with 'index' and 'id', do not shuffle the test data, or test on one device."
    )


def _is_fixed(sampler: Any) -> bool:
    """Whether iterating again gives the same order. Lightning wraps a custom sampler into a distributed one."""
    wrapped = getattr(getattr(sampler, "dataset", None), "_sampler", None)
    if wrapped is not None:
        return _is_fixed(wrapped)
    return isinstance(sampler, SequentialSampler) or (isinstance(sampler, DistributedSampler) and not sampler.shuffle)

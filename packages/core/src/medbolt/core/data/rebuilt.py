"""A loader like another one, over other samples."""

from collections.abc import Callable, Iterable
from typing import Any

from torch.utils.data import DataLoader, Dataset

from medbolt.core.errors import UserError


def rebuilt(
    loader: DataLoader[Any],
    dataset: Dataset[Any],
    collate_fn: Callable[[list[Any]], Any] | None = None,
    sampler: Iterable[int] | None = None,
    drop_last: bool | None = None,
) -> DataLoader[Any]:
    """Return a loader of the same class over another data set, which batches and loads as the given one does.

    Args:
        loader: The loader to copy; it batches.
        dataset: What the new one loads.
        collate_fn: Replaces the loader's own.
        sampler: Replaces the loader's own sampler, or sampler of batches.
        drop_last: Replaces the loader's own.

    Raises:
        UserError: if the loader is of a class that does not take the arguments of ``DataLoader``.

    Example:
        >>> loader = torch.utils.data.DataLoader(range(10), batch_size=4)
        >>> [len(batch) for batch in rebuilt(loader, range(6), sampler=range(6))]
        [4, 2]
    """
    batches: dict[str, Any] = {
        "batch_size": loader.batch_size or 32,
        "sampler": loader.sampler if sampler is None else sampler,
        "drop_last": loader.drop_last if drop_last is None else drop_last,
    }
    if loader.batch_size is None and sampler is None:
        batches = {"batch_sampler": loader.batch_sampler}
    try:
        return type(loader)(  # pyright: ignore[reportCallIssue]
            dataset,
            **batches,
            num_workers=loader.num_workers,
            collate_fn=collate_fn or loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )
    except TypeError as error:
        raise UserError(
            f"a {type(loader).__name__} cannot be made over other samples, as it does not take the arguments of "
            f"DataLoader ({error}); return a plain DataLoader, or yield the index in the batches yourself."
        ) from error

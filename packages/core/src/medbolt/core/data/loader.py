"""A data loader that continues an interrupted epoch where it stopped."""

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from medbolt.core.data.sampler import EpochSampler
from medbolt.core.errors import UserError


class ResumableDataLoader(DataLoader[dict[str, Any]]):
    """A :class:`~torch.utils.data.DataLoader` over an :class:`EpochSampler` whose position is checkpointed.

    Lightning saves the state of a loader that has ``state_dict`` and ``load_state_dict``. The order and the draws are
    functions of (seed, epoch), so the epoch and the number of batches handed out are all there is to know, and they are
    the same on every process. A restored position counts only in its own epoch: an epoch that ended early by
    ``limit_train_batches`` is not continued. With another sampler, which Lightning puts in for ``overfit_batches``, it
    is a plain loader.

    It takes the arguments of :class:`~torch.utils.data.DataLoader`. Workers start at the first batch, not before, so
    that the sampler knows its epoch by then.

    Example:
        >>> loader = ResumableDataLoader(range(6), batch_size=2, sampler=EpochSampler(range(6), shuffle=False))
        >>> loader.load_state_dict({"epoch": 0, "batches": 2, "batch_size": 2})
        >>> list(loader)
        [tensor([4, 5])]
    """

    _batches = 0
    _restored: dict[str, int] | None = None

    def __iter__(self) -> Iterator[Any]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Yield the batches of the epoch, or its remainder after :meth:`load_state_dict`."""
        restored, self._restored = self._restored, None
        self._batches = 0
        if isinstance(self.sampler, EpochSampler):
            if restored and restored["epoch"] == self.sampler.epoch:
                self._batches = restored["batches"]
                if restored["batch_size"] != self._global_batch_size:
                    raise UserError(
                        f"the checkpoint was saved inside an epoch with {restored['batch_size']} samples a batch over "
                        f"all processes, here it is {self._global_batch_size}; resume with the same batch_size times "
                        "devices, or from the end of an epoch."
                    )
            self.sampler.start = self._batches * (self.batch_size or 1)
        for batch in super().__iter__():
            self._batches += 1
            yield batch

    def state_dict(self) -> dict[str, int]:
        """Return the epoch, the number of its batches handed out so far and their size over all processes."""
        if not isinstance(self.sampler, EpochSampler):
            return {}
        return {"epoch": self.sampler.epoch, "batches": self._batches, "batch_size": self._global_batch_size}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Continue at a position saved by :meth:`state_dict`; the iteration refuses one of other batches."""
        self._restored = dict(state)

    @property
    def _global_batch_size(self) -> int:
        return (self.batch_size or 1) * self.sampler.num_replicas if isinstance(self.sampler, EpochSampler) else 0

"""Per-sample state by data set index, right on every process and after a crash."""

from typing import Any

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor

from medbolt.core.errors import UserError


class SampleMemory:
    """What a method remembers of each training sample: losses, probabilities, flags, corrected labels.

    Rows are written where a sample was seen and merged across processes at defined points (:meth:`merge`). The newest
    write of a sample wins; of writes in the same step the lowest process's, and within one batch the last. So padding
    duplicates are harmless and every process holds the same rows after a merge. It is not an ``nn.Module``: buffers
    would be overwritten by process 0's copy at each forward of DistributedDataParallel.

    Args:
        size: Number N of samples of the base training set.
        fields: By name, the row every sample starts with; it sets the field's dtype and shape. Any dtype that
            ``torch.distributed`` can add up (not complex); booleans are sent as bytes.

    State, cost: N rows a field on the device it is moved to, plus 9 bytes a sample while running; a checkpoint stores
    the rows and one byte a sample. A merge sends every row once.

    Example:
        >>> memory = SampleMemory(4, loss=torch.tensor(float("nan")), probability=torch.zeros(2))
        >>> memory.write(torch.tensor([3, 1]), loss=torch.tensor([0.5, 2.0]))
        >>> memory["loss"]
        tensor([   nan, 2.0000,    nan, 0.5000])
        >>> memory.seen
        tensor([False,  True, False,  True])
    """

    def __init__(self, size: int, **fields: Tensor) -> None:
        if size < 1:
            raise ValueError(f"size must be at least 1, got {size}")
        self.size = size
        self.fields = {name: row.detach().expand(size, *row.shape).clone() for name, row in fields.items()}
        self.seen = torch.zeros(size, dtype=torch.bool)
        self.fingerprint = ""  # of the data the rows belong to; checked on load when both sides have one
        self._written = torch.zeros(size, dtype=torch.int64)  # clock of the last write since the last merge, 0 = none
        self._clock = 0

    def __len__(self) -> int:
        """Return the number of samples."""
        return self.size

    def __getitem__(self, name: str) -> Tensor:
        """Return a field, (N, ...); what other processes wrote since the last merge is not in it."""
        return self.fields[name]

    def to(self, device: torch.device | str) -> "SampleMemory":
        """Move all rows to a device, in place."""
        self.fields = {name: values.to(device) for name, values in self.fields.items()}
        self.seen, self._written = self.seen.to(device), self._written.to(device)
        return self

    def read(self, index: Tensor, name: str) -> Tensor:
        """Return the rows of a batch, (B, ...)."""
        return self.fields[name][index.to(self.seen.device)]

    def write(self, index: Tensor, **values: Tensor) -> None:
        """Write rows of a batch; every process calls it equally often between two merges.

        Args:
            index: (B,) int64; none at all (B = 0) still counts as a write.
            values: By field name, (B, ...) of the field's row shape; detached and cast to the field's dtype.
        """
        index = index.to(self.seen.device)
        self._clock += 1
        if not len(index):
            return
        # Of equal indices in a batch all take the value of the last: a scatter with repeats is not deterministic.
        order = torch.arange(len(index), device=index.device)
        last = ((index[:, None] == index) * order).amax(1)
        for name, value in values.items():
            field = self.fields[name]
            field[index] = value.detach().to(field)[last]
        self.seen[index] = True
        self._written[index] = self._clock

    def merge(self, strategy: Strategy) -> None:
        """Make the rows equal on all processes; call it on every one of them (a collective)."""
        world, rank = getattr(strategy, "world_size", 1), getattr(strategy, "global_rank", 0)
        if world > 1:
            claim = self._written * world + (world - 1 - rank) * (self._written > 0)
            winner = _reduced(strategy, claim.clone(), "max")
            mine, anyones = (claim == winner) & (winner > 0), winner > 0
            for name, field in self.fields.items():
                sendable = field.to(torch.uint8) if field.dtype == torch.bool else field
                total = _reduced(strategy, torch.where(_column(mine, field), sendable, 0), "sum")
                self.fields[name] = torch.where(_column(anyones, field), total.to(field.dtype), field)
            self.seen |= anyones
        self._written.zero_()
        self._clock = 0

    def state_dict(self) -> dict[str, Any]:
        """Return rows, flags and fingerprint; merge before, so that process 0 knows all."""
        return {
            "fields": {name: values.cpu() for name, values in self.fields.items()},
            "seen": self.seen.cpu(),
            "fingerprint": self.fingerprint,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore rows saved by :meth:`state_dict`.

        Raises:
            UserError: if they are of other data or other fields.
        """
        theirs, mine = state["fingerprint"], self.fingerprint
        if len(state["seen"]) != self.size or (theirs and mine and theirs != mine):
            raise UserError(
                f"the checkpoint's per-sample memory belongs to other training data ({len(state['seen'])} samples, "
                f"{theirs[:8] or 'no'} fingerprint; here {self.size} samples, {mine[:8] or 'no'} fingerprint); resume "
                "with the data it was trained on."
            )
        saved = {name: (values.shape, values.dtype) for name, values in state["fields"].items()}
        expected = {name: (values.shape, values.dtype) for name, values in self.fields.items()}
        if saved != expected:
            raise UserError(
                f"the checkpoint's per-sample memory holds {_described(saved)}, this method needs "
                f"{_described(expected)}; resume with the method it was trained with."
            )
        self.fields = {name: values.to(self.seen.device) for name, values in state["fields"].items()}
        self.seen = state["seen"].to(self.seen.device)
        self._written.zero_()


def _reduced(strategy: Strategy, values: Tensor, how: str) -> Tensor:
    result = strategy.reduce(values, reduce_op=how)  # pyright: ignore[reportArgumentType]
    assert isinstance(result, Tensor)
    return result


def _column(flags: Tensor, field: Tensor) -> Tensor:
    return flags.view(-1, *[1] * (field.ndim - 1))


def _described(fields: dict[str, tuple[torch.Size, torch.dtype]]) -> str:
    return ", ".join(f"{name} {tuple(shape)}" for name, (shape, _) in fields.items()) or "nothing"

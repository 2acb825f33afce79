"""Rows that several processes hold, brought together without counting one twice."""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pandas as pd
import pyarrow.parquet as pq
from lightning.pytorch import Trainer

from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write

Result = TypeVar("Result")


def on_rank_zero(trainer: Trainer, work: Callable[[], Result]) -> Result | None:
    """Do ``work`` on rank 0 while the others wait, and raise its :class:`UserError` on all of them.

    An error raised on one process alone would leave the others waiting for ever.

    Returns:
        The result on rank 0, None elsewhere.
    """
    result, error = None, None
    if trainer.is_global_zero:
        try:
            result = work()
        except UserError as raised:
            error = raised
    message = trainer.strategy.broadcast(None if error is None else str(error))
    if message is not None:
        raise error or UserError(message)
    return result


def gather(trainer: Trainer, rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Bring the rows of all processes to rank 0, through files beside ``path``.

    Args:
        trainer: Knows the processes.
        rows: This process's rows; without any column if it had no batch.
        path: File that the rows are for, in a folder that all processes share.

    Returns:
        All rows on rank 0, none elsewhere.

    Raises:
        UserError: on every process, if one of them cannot write or rank 0 cannot read.
    """
    if trainer.world_size == 1:
        return rows
    error = None
    try:
        with atomic_write(_shard(path, trainer.global_rank, trainer.world_size)) as temporary:
            rows.to_parquet(temporary, index=False)
    except UserError as raised:
        error = raised
    if not trainer.strategy.reduce_boolean_decision(error is None):
        raise error or UserError(f"another process cannot write its share of '{path}'; see its message.")
    trainer.strategy.barrier("medbolt.predictions")
    gathered = on_rank_zero(trainer, lambda: _collect(path, trainer.world_size))
    return rows.iloc[:0] if gathered is None else gathered


def _collect(path: Path, processes: int) -> pd.DataFrame:
    shards = [_shard(path, rank, processes) for rank in range(processes)]
    missing = [shard for shard in shards if not shard.exists()]
    if missing:
        raise UserError(f"'{missing[0]}' is not there; '{path.parent}' must be a folder that all processes share.")
    frames = [pq.ParquetFile(shard).read().to_pandas() for shard in shards]
    for shard in shards:
        shard.unlink()
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else frames[0]


def _shard(path: Path, rank: int, processes: int) -> Path:
    return path.with_name(f".{path.stem}.{rank}-of-{processes}.parquet")

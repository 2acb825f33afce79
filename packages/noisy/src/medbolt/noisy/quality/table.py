"""Tables in CSV files."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

from medbolt.core.files import atomic_write


def write_csv(path: Path, columns: Mapping[str, Sequence[object]]) -> None:
    """Write columns of equal length, numbers with six significant digits, all or nothing.

    Raises:
        UserError: if the file cannot be written.
    """
    rows = zip(*columns.values(), strict=True)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows([f"{value:.6g}" if isinstance(value, float) else value for value in row] for row in rows)


def ranks(scores: Sequence[float]) -> list[int]:
    """Return the rank of each score from 1, the lowest; equal ones in their order.

    Example:
        >>> ranks([0.5, 0.1, 0.9])
        [2, 1, 3]
    """
    order = sorted(range(len(scores)), key=scores.__getitem__)
    places = {position: rank for rank, position in enumerate(order, start=1)}
    return [places[position] for position in range(len(scores))]

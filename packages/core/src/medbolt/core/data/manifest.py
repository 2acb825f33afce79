"""Manifests: tables of images in CSV or Parquet, read strictly, with messages that name the row."""

import csv
import gzip
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from string import Formatter
from typing import Any

import pandas as pd

from medbolt.core.data.locate import locate
from medbolt.core.errors import UserError, did_you_mean, listed

_MISSING = ("", "nan", "NaN")
_WHOLE = re.compile(r"-?\d+(\.0+)?")


@dataclass(frozen=True, eq=False)
class Manifest:
    """A table with one image a row.

    Args:
        path: The file it came from.
        frame: Its columns; every value is a string, or ``None`` where the cell is empty or NaN. The index is the row
            as a spreadsheet counts it: from 1, the header of a CSV file being row 1.

    Example:
        >>> table = Manifest(Path("labels.csv"), pd.DataFrame({"image": ["a.png"]}, index=[2]))
        >>> table.texts("image"), table.place(0)
        (['a.png'], 'row 2 of labels.csv')
    """

    path: Path
    frame: pd.DataFrame

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.frame)

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self.frame.columns)

    def place(self, position: int) -> str:
        """Return how a message names the row at ``position``."""
        return f"row {self.frame.index[position]} of {self.path.name}"

    def places(self) -> list[str]:
        """Return :meth:`place` of every row."""
        return [f"row {row} of {self.path.name}" for row in self.frame.index]

    def cells(self, column: str) -> list[str | None]:
        """Return a column, ``None`` where it is empty.

        Raises:
            UserError: if there is no such column; the nearest name is suggested.
        """
        if column not in self.frame.columns:
            hint = did_you_mean(column, self.columns)
            raise UserError(f"{self.path.name} has no column '{column}'{hint}; it has {listed(self.columns, most=20)}.")
        return self.frame[column].tolist()

    def texts(self, column: str) -> list[str]:
        """Return a column without empty cells.

        Raises:
            UserError: if there is no such column, or naming the first row where it is empty.
        """
        cells = self.cells(column)
        if None in cells:
            place = self.place(cells.index(None))
            raise UserError(f"{place} has no value in column '{column}'; fill it in or remove the row.")
        return cells  # pyright: ignore[reportReturnType]

    def references(self, pattern: str) -> list[str]:
        """Return an image reference a row: a column's value, or a pattern such as ``"images.zip/{image_id}.jpg"``.

        Raises:
            UserError: if a column is missing, a cell is empty or the pattern is malformed.
        """
        if "{" not in pattern:
            return self.texts(pattern)
        try:
            names = [name for _, name, _, _ in Formatter().parse(pattern) if name is not None]
            columns = {name: self.texts(name) for name in names}
            rows = range(len(self))  # not zip: a pattern of escaped braces names no column
            return [pattern.format(**{name: texts[row] for name, texts in columns.items()}) for row in rows]
        except (ValueError, KeyError, IndexError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(f"'{pattern}' is no pattern of column names, such as 'images/{{id}}.png'.") from error

    def where(self, keep: Mapping[str, Sequence[str]]) -> "Manifest":
        """Return the rows whose columns have one of the values to keep.

        Raises:
            UserError: if a column is missing, or a value occurs nowhere in it.
        """
        frame = self.frame
        for column, values in keep.items():
            present = set(self.cells(column)) - {None}
            values = [str(value) for value in ([values] if isinstance(values, str) else values)]
            for value in values:
                if value not in present:
                    raise UserError(
                        f"column '{column}' of {self.path.name} has no value '{value}' to keep"
                        f"{did_you_mean(value, (str(v) for v in present))}; it has {listed(sorted(map(str, present)))}."
                    )
            frame = frame[frame[column].isin(values)]
        return replace(self, frame=frame)


def read_manifest(path: Path | str) -> Manifest:
    """Read a CSV (``.csv``, ``.tsv``, either with ``.gz``) or Parquet file.

    CSV files must be UTF-8 with as many cells in every row as in the header. Blanks around a cell do not count. Empty
    cells and ``NaN`` are missing; words such as "None" and "NA" are values, since they may be a class. In a column of
    whole numbers 1.0 is 1, as programs write it where a number of the column is missing.

    Args:
        path: The file; see :func:`~medbolt.core.data.locate.locate`.

    Raises:
        UserError: if the file is missing, empty, of another encoding or ragged.

    Example:
        >>> read_manifest("nowhere/labels.csv")
        Traceback (most recent call last):
        medbolt.core.errors.UserError: there is no nowhere/labels.csv ...
    """
    path = locate(path)
    if path.is_dir():
        raise UserError(f"{path} is a folder; name the CSV or Parquet file in it.")
    frame = _read_parquet(path) if path.suffix in (".parquet", ".pq") else _read_csv(path)
    if frame.empty:
        raise UserError(f"{path} has no rows; add one an image.")
    return Manifest(path, frame)


def _read_csv(path: Path) -> pd.DataFrame:
    is_packed = path.suffix == ".gz"
    delimiter = "\t" if path.with_suffix("").suffix == ".tsv" or path.suffix == ".tsv" else ","
    try:
        with (gzip.open if is_packed else open)(path, "rt", encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter=delimiter, strict=True)
            header = [name.strip() for name in next(reader, [])]
            rows = list(_even_rows(path, reader, len(header)))
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path} is not UTF-8 (byte 0x{error.object[error.start]:02x}); save it anew with UTF-8 encoding."
        ) from error
    except csv.Error as error:
        raise UserError(f"{path} is no valid CSV file ({error}); export it anew.") from error
    except (OSError, EOFError) as error:
        raise UserError(f"{path} cannot be read ({error}); copy it anew or change its permissions.") from error
    if twice := {name for name in header if header.count(name) > 1}:
        raise UserError(f"{path} has two columns named {listed(sorted(twice))}; rename one.")
    index, cells = [row for row, _ in rows], [cells for _, cells in rows]
    frame = pd.DataFrame(cells, index=index, columns=header, dtype=object)
    return frame.apply(_as_whole_numbers)


def _as_whole_numbers(column: pd.Series) -> pd.Series:
    cells: list[str | None] = column.tolist()
    written = [cell for cell in cells if cell is not None]
    if not all(_WHOLE.fullmatch(cell) for cell in written) or not any("." in cell for cell in written):
        return column
    whole = [None if cell is None else cell.partition(".")[0] for cell in cells]
    return pd.Series(whole, index=column.index, dtype=object)


def _even_rows(path: Path, reader: Iterable[list[str]], width: int) -> Iterable[tuple[int, list[str | None]]]:
    for number, row in enumerate(reader, start=2):
        if not row:
            continue
        if len(row) != width:
            line = reader.line_num  # pyright: ignore[reportAttributeAccessIssue]
            remedy = "quote cells that contain commas"
            if width == 1:
                remedy = "separate the columns by commas, or by tabs in a .tsv file"
            raise UserError(f"line {line} of {path} has {len(row)} cells and the header {width}; {remedy}.")
        yield number, [None if cell in _MISSING else cell for cell in map(str.strip, row)]


def _read_parquet(path: Path) -> pd.DataFrame:
    try:
        frame = pd.read_parquet(path)
    except (OSError, ValueError) as error:  # pyarrow's errors derive from these
        raise UserError(f"{path} is no readable Parquet file; write it anew.") from error
    columns = {str(name): _as_texts(frame[name]) for name in frame.columns}
    return pd.DataFrame(columns, index=pd.RangeIndex(1, len(frame) + 1), dtype=object)


def _as_texts(column: pd.Series) -> list[str | None]:
    if pd.api.types.is_bool_dtype(column):
        column = column.astype("Int8")
    values: list[str | None] = []
    for cell in column.astype(object):
        value: Any = cell.strip() if isinstance(cell, str) else cell
        missing = pd.api.types.is_scalar(value) and (pd.isna(value) or value in _MISSING)
        whole = isinstance(value, float) and not missing and value.is_integer()
        values.append(None if missing else str(int(value) if whole else value))
    return values

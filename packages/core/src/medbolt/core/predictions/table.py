"""The prediction table: the contract between training and statistics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from medbolt.core.errors import UserError, listed
from medbolt.core.files import atomic_write
from medbolt.core.predictions.checks import check_ids, check_probabilities, check_range, normal, numbered

_METADATA = b"medbolt.predictions"


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model said about every sample of a data set, checked.

    Columns of ``frame``: ``id`` and ``group`` (patient; may be missing), ``dataset``, ``domain`` (Int64, position in
    ``domain_names``; may be missing), ``split``, ``method``, ``seed`` (Int64; may be missing), ``target`` (Int64,
    missing without a label), ``prediction`` (Int64) and ``p_0`` to ``p_{K-1}`` (float32). Multi-label tables have
    ``target_0`` to ``target_{K-1}`` and ``prediction_0`` to ``prediction_{K-1}`` (0 or 1) instead of ``target`` and
    ``prediction``. Further columns (sex, age) are kept behind these. Columns other than ``id`` and the probabilities
    may be left out: text is then empty, numbers missing, the prediction the most probable class (or p >= 0.5).

    Args:
        frame: One row a sample.
        class_names: K names, by class index.
        domain_names: Names of the domains, by domain index.
        run: What else is to be known about the run; anything JSON can hold.

    Raises:
        UserError: for a missing or repeated id, a probability that is not one, rows of a multi-class table that do not
            sum to 1, or a target, prediction or domain that has no name.

    Example:
        >>> frame = pd.DataFrame({"id": ["a", "b"], "target": [0, 1], "p_0": [0.9, 0.6], "p_1": [0.1, 0.4]})
        >>> table = Predictions(frame, ["healthy", "ill"])
        >>> table.target, table.prediction
        (array([0, 1]), array([0, 0]))
    """

    frame: pd.DataFrame
    class_names: Sequence[str]
    domain_names: Sequence[str] = ()
    run: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the frame and bring it into its normal form."""
        object.__setattr__(self, "class_names", tuple(self.class_names))
        object.__setattr__(self, "domain_names", tuple(self.domain_names))
        probabilities = numbered("p", len(self.class_names))
        missing = [name for name in ("id", *probabilities) if name not in self.frame.columns]
        if missing or f"p_{len(probabilities)}" in self.frame.columns:
            raise UserError(
                f"{len(probabilities)} classes need the columns 'id', 'p_0' to 'p_{len(probabilities) - 1}' and no "
                f"'p_{len(probabilities)}', but the table has {listed(self.frame.columns, most=20)}."
            )
        object.__setattr__(self, "frame", normal(self.frame, probabilities))
        check_ids(self.frame)
        check_probabilities(self.frame, self.probability, sum_to_one=not self.multilabel)
        check_range(self.frame, "domain", len(self.domain_names), "domain_names")
        if not self.multilabel:
            check_range(self.frame, "target", len(self.class_names), "class_names")
            check_range(self.frame, "prediction", len(self.class_names), "class_names")

    def __len__(self) -> int:
        """Return the number of samples."""
        return len(self.frame)

    @property
    def multilabel(self) -> bool:
        """Whether a sample can belong to several classes."""
        return "target_0" in self.frame.columns

    @property
    def probability(self) -> NDArray[np.float64]:
        """(n, K) probabilities."""
        return self.frame[numbered("p", len(self.class_names))].to_numpy(np.float64)

    @property
    def target(self) -> NDArray[np.int64]:
        """(n,) class indices, or (n, K) 0/1 for multi-label; only if all samples are labelled, see :meth:`labelled`."""
        return self._integers("target")

    @property
    def prediction(self) -> NDArray[np.int64]:
        """(n,) class indices, or (n, K) 0/1 for multi-label."""
        return self._integers("prediction")

    @property
    def groups(self) -> NDArray[np.object_] | None:
        """(n,) names of patients or other units, a sample without one being its own; None if no sample has one."""
        group = self.frame["group"]
        if not group.notna().any():
            return None
        return group.where(group.notna(), "\x1f" + self.frame["id"]).to_numpy(np.object_)

    def labelled(self) -> "Predictions":
        """Return the samples that have a target."""
        first = "target_0" if self.multilabel else "target"
        return self.where(self.frame[first].notna())

    def where(self, keep: pd.Series | NDArray[np.bool_]) -> "Predictions":
        """Return the samples for which ``keep`` (n,) is true."""
        return replace(self, frame=self.frame[np.asarray(keep, np.bool_)].reset_index(drop=True))

    def _integers(self, name: str) -> NDArray[np.int64]:
        columns = numbered(name, len(self.class_names)) if self.multilabel else name
        return self.frame[columns].to_numpy(np.int64)


def write_predictions(
    frame: pd.DataFrame,
    path: Path | str,
    class_names: Sequence[str],
    domain_names: Sequence[str] = (),
    run: Mapping[str, object] | None = None,
) -> Predictions:
    """Check a prediction table and write it as one Parquet file, all or nothing.

    Args:
        frame: One row a sample, see :class:`Predictions`.
        path: The file to write or to replace.
        class_names: K names, by class index.
        domain_names: Names of the domains, by domain index.
        run: What else is to be known about the run; anything JSON can hold.

    Returns:
        The table as written.

    Raises:
        UserError: if the table is not valid or the file cannot be written.

    Example:
        >>> import tempfile
        >>> frame = pd.DataFrame({"id": ["a", "b"], "target": [0, 1], "p_0": [0.9, 0.6], "p_1": [0.1, 0.4]})
        >>> path = Path(tempfile.mkdtemp()) / "predictions.parquet"
        >>> _ = write_predictions(frame, path, ["healthy", "ill"], run={"epochs": 3})
        >>> read_predictions(path).run
        {'epochs': 3}
    """
    table = Predictions(frame, class_names, domain_names, run or {})
    header = {"class_names": table.class_names, "domain_names": table.domain_names, "run": dict(table.run)}
    arrow = pa.Table.from_pandas(table.frame, preserve_index=False)
    arrow = arrow.replace_schema_metadata({**(arrow.schema.metadata or {}), _METADATA: json.dumps(header).encode()})
    with atomic_write(path) as temporary:
        pq.write_table(arrow, temporary)
    return table


def read_predictions(path: Path | str) -> Predictions:
    """Read a prediction table.

    Args:
        path: A Parquet file by :func:`write_predictions` or :class:`PredictionTable`.

    Returns:
        The table, checked again.

    Raises:
        UserError: if the file is missing, is no prediction table, or is not valid.

    Example:
        >>> read_predictions("nowhere.parquet")
        Traceback (most recent call last):
        medbolt.core.errors.UserError: there is no prediction table 'nowhere.parquet'; run test with the PredictionTable callback first.
    """  # noqa: E501
    if not Path(path).is_file():
        raise UserError(f"there is no prediction table '{path}'; run test with the PredictionTable callback first.")
    try:
        arrow = pq.ParquetFile(path).read()
    except (pa.ArrowException, OSError) as error:
        raise UserError(f"'{path}' cannot be read as Parquet ({str(error).splitlines()[0]}); write it anew.") from error
    header = (arrow.schema.metadata or {}).get(_METADATA)
    if header is None:
        raise UserError(f"'{path}' holds no class names: write it with write_predictions or PredictionTable.")
    try:
        return Predictions(arrow.to_pandas(), **json.loads(header))
    except UserError as error:
        raise UserError(f"'{path}': {error}") from error

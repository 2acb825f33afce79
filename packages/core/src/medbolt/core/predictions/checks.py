"""What makes a frame a prediction table: its columns, their types, and what they may hold."""

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from medbolt.core.errors import UserError

_TEXT = ("id", "group", "dataset", "split", "method")
_SUM_TOLERANCE = 0.01  # half-precision probabilities of many classes


def numbered(name: str, count: int) -> list[str]:
    """Return the names of a column that there is once a class.

    Example:
        >>> numbered("p", 2)
        ['p_0', 'p_1']
    """
    return [f"{name}_{k}" for k in range(count)]


def normal(frame: pd.DataFrame, probabilities: list[str]) -> pd.DataFrame:
    """Return a copy with all columns of a prediction table, in order, with their types."""
    frame = frame.reset_index(drop=True)
    values = frame[probabilities].to_numpy(np.float32)
    if "target_0" in frame.columns:
        targets, predictions = numbered("target", values.shape[1]), numbered("prediction", values.shape[1])
        chosen = values >= 0.5
    else:
        targets, predictions = ["target"], ["prediction"]
        chosen = values.argmax(axis=1)[:, None]
    defaults = {
        **dict.fromkeys(("dataset", "split", "method"), ""),
        **dict.fromkeys(("group", "domain", "seed", *targets), pd.NA),
        **dict(zip(predictions, chosen.T, strict=True)),
    }
    frame = frame.assign(**{name: value for name, value in defaults.items() if name not in frame.columns})
    head = ["id", "group", "dataset", "domain", "split", "method", "seed", *targets, *predictions, *probabilities]
    types: dict[str, Any] = {
        **dict.fromkeys(_TEXT, "string"),
        **dict.fromkeys(("domain", "seed", *targets, *predictions), "Int64"),
        **dict.fromkeys(probabilities, "float32"),
    }
    for name, dtype in types.items():
        try:
            frame[name] = frame[name].astype(dtype)
        except (TypeError, ValueError) as error:
            raise UserError(f"column '{name}' of the prediction table holds other values than {dtype}.") from error
    return frame[[*head, *(name for name in frame.columns if name not in head)]]


def check_ids(frame: pd.DataFrame) -> None:
    """Refuse samples without a name and samples that come twice."""
    nameless = np.asarray(frame["id"].isna() | (frame["id"] == ""), np.bool_)
    if nameless.any():
        raise UserError(f"row {int(nameless.argmax())} of the prediction table has no id; name every sample.")
    repeated = np.asarray(frame.duplicated(["id", "dataset", "split", "method", "seed"]))
    if repeated.any():
        raise UserError(
            f"{_named(frame, repeated)} more than once in the prediction table; give every sample an id of its own."
        )


def check_probabilities(frame: pd.DataFrame, probability: NDArray[np.float64], sum_to_one: bool) -> None:
    """Refuse what is not a probability, (n, K)."""
    broken = np.logical_not(np.isfinite(probability).all(axis=1))
    if broken.any():
        raise UserError(
            f"{_named(frame, broken)} with probabilities that are NaN or infinite; the model has diverged or its input "
            "is broken."
        )
    wrong = np.asarray(((probability < -1e-6) | (probability > 1 + 1e-6)).any(axis=1))
    if sum_to_one:
        wrong |= np.abs(probability.sum(axis=1) - 1) > _SUM_TOLERANCE
    if wrong.any():
        raise UserError(
            f"{_named(frame, wrong)} with probabilities that are not in [0, 1] or do not sum to 1; give probabilities, "
            "not logits."
        )


def check_range(frame: pd.DataFrame, column: str, size: int, names: str) -> None:
    """Refuse a number that is not a position in the ``size`` entries of ``names``."""
    value = frame[column].fillna(0).to_numpy(np.int64)
    unknown = np.asarray(frame[column].notna(), np.bool_) & ((value < 0) | (value >= size))
    if unknown.any():
        raise UserError(
            f"{_named(frame, unknown)} with {column} {value[unknown.argmax()]}, which is not among the {size} {names}; "
            "name it there or correct the table."
        )


def _named(frame: pd.DataFrame, wrong: NDArray[np.bool_]) -> str:
    """Say how many samples are wrong, and which is the first."""
    first = frame["id"].iloc[int(wrong.argmax())]
    return f"sample '{first}' comes" if wrong.sum() == 1 else f"{wrong.sum()} samples, '{first}' the first, come"

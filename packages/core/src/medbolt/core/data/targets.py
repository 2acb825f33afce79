"""Labels of a manifest as targets: classes by name or number, findings as columns."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from medbolt.core.data.manifest import Manifest
from medbolt.core.errors import UserError, did_you_mean, listed


def natural_order(names: set[str]) -> list[str]:
    """Return names sorted by number where all are numbers, else alphabetically.

    Example:
        >>> natural_order({"10", "9"}), natural_order({"nv", "10"})
        (['9', '10'], ['10', 'nv'])
    """
    return sorted(names, key=float) if all(_is_number(name) for name in names) else sorted(names)


def class_targets(
    manifest: Manifest, column: str, class_names: Sequence[str] | None = None
) -> tuple[Tensor, list[str]]:
    """Return the classes of a label column.

    Args:
        manifest: The table.
        column: Its label column.
        class_names: Names by class index; labels may be these names, or all be class indices. By default the labels
            that occur, in natural order.

    Returns:
        (N,) int64 classes, and the class names.

    Raises:
        UserError: naming the first row whose label is empty, not among ``class_names`` or out of their range.

    Example:
        >>> import pandas as pd
        >>> from pathlib import Path
        >>> manifest = Manifest(Path("a.csv"), pd.DataFrame({"grade": ["2", "0"]}, index=[2, 3]))
        >>> class_targets(manifest, "grade")
        (tensor([1, 0]), ['0', '2'])
        >>> class_targets(manifest, "grade", ["none", "mild", "severe"])[0]
        tensor([2, 0])
    """
    labels = manifest.texts(column)
    names = natural_order(set(labels)) if class_names is None else list(class_names)
    number = {label: i for i, label in enumerate(allowed_labels(set(labels), names))}
    for position, label in enumerate(labels):
        if label not in number:
            raise UserError(
                f"{manifest.place(position)} has the unknown label '{label}' in column '{column}'"
                f"{did_you_mean(label, names)}; correct it or class_names ({listed(names)})."
            )
    return torch.tensor([number[label] for label in labels]), names


def allowed_labels(labels: set[str], class_names: Sequence[str]) -> list[str]:
    """Return what the labels of the given classes are written as: their names, or all their indices.

    Example:
        >>> allowed_labels({"mild"}, ["none", "mild"]), allowed_labels({"1"}, ["none", "mild"])
        (['none', 'mild'], ['0', '1'])
    """
    are_indices = labels.isdisjoint(class_names) and all(label.isdigit() for label in labels)
    return [str(i) for i in range(len(class_names))] if are_indices else list(class_names)


def presence(label: str) -> float | None:
    """Return what a cell says of a finding, from 0 (absent) to 1 (present); ``None`` if it is no such number.

    Example:
        >>> presence("1.0"), presence("0.3"), presence("2"), presence("yes")
        (1.0, 0.3, None, None)
    """
    value = float(label) if _is_number(label) else -1.0
    return value if 0 <= value <= 1 else None


def finding_targets(manifest: Manifest, columns: Sequence[str]) -> Tensor:
    """Return the findings of several label columns, one a column.

    Returns:
        (N, C) float32 between 0 (absent) and 1 (present).

    Raises:
        UserError: naming the first row and column where the label is empty or not from 0 to 1.

    Example:
        >>> import pandas as pd
        >>> from pathlib import Path
        >>> manifest = Manifest(Path("a.csv"), pd.DataFrame({"edema": ["1", "0"], "mass": ["0", "0"]}))
        >>> finding_targets(manifest, ["edema", "mass"]).tolist()
        [[1.0, 0.0], [0.0, 0.0]]
    """
    targets = np.empty((len(manifest), len(columns)), dtype=np.float32)
    for c, column in enumerate(columns):
        for position, label in enumerate(manifest.texts(column)):
            if (value := presence(label)) is None:
                raise UserError(
                    f"{manifest.place(position)} has the label '{label}' in column '{column}'; findings are 0 or 1, or "
                    "a probability between."
                )
            targets[position, c] = value
    return torch.from_numpy(targets)


def _is_number(text: str) -> bool:
    try:
        return np.isfinite(float(text)).item()
    except ValueError:
        return False

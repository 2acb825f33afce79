"""MONICA's pickled splits as a table that any program can read without running code."""

import csv
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import numpy as np

from medbolt.core import UserError
from medbolt.core.data.locate import locate
from medbolt.core.files import atomic_write


def convert_monica(
    labels: Path | str,
    train: Path | str,
    val: Path | str,
    test: Path | str,
    output: Path | str,
    trust_pickle: bool = False,
) -> None:
    """Write MONICA's dictionary of labels and arrays of names as one table.

    The dictionary is pickled, and unpickling runs whatever code a file contains. Do it once, with files from MONICA's
    own repository, and keep the table.

    Args:
        labels: ``dic.npy``: the label of every image of the pool by name.
        train: Names of the training images, such as ``train_100.npy``.
        val: Names of the validation images.
        test: Names of the test images.
        output: CSV file to write, with columns ``path``, ``label`` and ``split``.
        trust_pickle: Load pickled files; without it they are refused.

    Raises:
        UserError: if a file is pickled and not trusted, is not what MONICA's are, names an image without a label, or
            an image is in two splits.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> for name, images in {"train": ["a.jpg", "b.jpg"], "val": ["c.jpg"], "test": ["d.jpg"]}.items():
        ...     np.save(folder / f"{name}.npy", np.array(images))
        >>> np.save(folder / "dic.npy", np.array({"a.jpg": 0, "b.jpg": 1, "c.jpg": 0, "d.jpg": 1}, dtype=object))
        >>> files = [folder / f"{name}.npy" for name in ("dic", "train", "val", "test")]
        >>> convert_monica(*files, folder / "split.csv", trust_pickle=True)
        >>> (folder / "split.csv").read_text().split()
        ['path,label,split', 'a.jpg,0,train', 'b.jpg,1,train', 'c.jpg,0,val', 'd.jpg,1,test']
    """
    label_of = _dictionary(locate(labels), trust_pickle)
    split_of: dict[str, str] = {}
    for split, file in (("train", train), ("val", val), ("test", test)):
        for name in _names(locate(file), trust_pickle):
            if name not in label_of:
                raise UserError(f"{file} names '{name}', of which {labels} has no label; take files of one split.")
            if name in split_of:
                raise UserError(f"'{name}' is in {split_of[name]} and again in {split}; take files of one split.")
            split_of[name] = split
    with atomic_write(output) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("path", "label", "split"))
        writer.writerows((name, label_of[name], split) for name, split in split_of.items())


def _dictionary(path: Path, trust_pickle: bool) -> dict[str, int]:
    array = _load(path, trust_pickle)
    content: Any = array.item() if array.ndim == 0 else None
    if not isinstance(content, dict) or not content:
        raise UserError(f"{path} holds no dictionary of labels; name MONICA's dic.npy.")
    labels: dict[str, int] = {}
    for name, label in content.items():
        if not isinstance(name, str) or not isinstance(label, int | np.integer) or isinstance(label, bool) or label < 0:
            raise UserError(f"{path} gives {name!r} the label {label!r}; labels are integers from 0 by name.")
        labels[str(name)] = int(label)
    return labels


def _names(path: Path, trust_pickle: bool) -> list[str]:
    array = _load(path, trust_pickle)
    names = array.tolist()
    if array.ndim != 1 or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path} holds no list of names; name one of MONICA's train, val and test arrays.")
    return names


def _load(path: Path, trust_pickle: bool) -> np.ndarray:
    try:
        array = np.load(path, allow_pickle=trust_pickle)
    except (ValueError, UnpicklingError, EOFError) as error:
        if not trust_pickle and "allow_pickle" in str(error):
            raise UserError(
                f"{path} holds pickled Python objects, which could run code when loaded; if you trust where it comes "
                "from, convert it with trust_pickle=True."
            ) from error
        raise UserError(f"{path} is no array that NumPy can read ({error}); download it anew.") from error
    if not isinstance(array, np.ndarray):
        raise UserError(f"{path} is no single array; name one of MONICA's npy files.")
    return array

import csv

import numpy as np
import pytest

from medbolt.core import UserError
from medbolt.longtail import convert_monica

LABELS = {f"{i}.jpg": i % 3 for i in range(9)}
SPLITS = {"train": ["0.jpg", "4.jpg", "8.jpg"], "val": ["1.jpg"], "test": ["2.jpg", "3.jpg"]}


@pytest.fixture
def write(tmp_path):
    """Write MONICA's four files, some of them otherwise, and return the arguments of the conversion."""

    def write(labels=LABELS, pickled=False, **splits):
        np.save(tmp_path / "dic.npy", np.array(labels, dtype=object))
        for name, images in (SPLITS | splits).items():
            np.save(tmp_path / f"{name}.npy", np.array(images, dtype=object if pickled else None))
        return [tmp_path / f"{name}.npy" for name in ("dic", "train", "val", "test")] + [tmp_path / "split.csv"]

    return write


@pytest.mark.parametrize("pickled", [False, True])
def test_the_table_has_every_image_of_the_splits_with_label_and_split(write, pickled):
    *files, output = write(pickled=pickled)
    convert_monica(*files, output, trust_pickle=True)
    with output.open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = [(name, str(LABELS[name]), split) for split, names in SPLITS.items() for name in names]
    assert [(row["path"], row["label"], row["split"]) for row in rows] == expected


def test_pickles_are_refused_unless_trusted_and_never_run(write, tmp_path):
    class Runs:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    *files, output = write({"0.jpg": Runs()})
    with pytest.raises(UserError, match=r"dic.npy holds pickled Python objects, .* convert it with trust_pickle=True"):
        convert_monica(*files, output)
    assert not (tmp_path / "ran").exists()
    assert not output.exists()


def test_names_of_integers_from_numpy_are_labels_too(write):
    *files, output = write({name: np.int64(label) for name, label in LABELS.items()})
    convert_monica(*files, output, trust_pickle=True)
    assert "4.jpg,1,train" in output.read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train": ["0.jpg", "none.jpg"]}, "train.npy names 'none.jpg', of which .*dic.npy has no label"),
        ({"val": ["0.jpg"]}, "'0.jpg' is in train and again in val"),
        ({"train": ["0.jpg", "0.jpg"]}, "'0.jpg' is in train and again in train"),
        ({"test": [1, 2]}, "test.npy holds no list of names"),
        ({"labels": {"0.jpg": "NV"}}, "dic.npy gives '0.jpg' the label 'NV'"),
        ({"labels": {"0.jpg": -1}}, "dic.npy gives '0.jpg' the label -1"),
        ({"labels": ["0.jpg"]}, "dic.npy holds no dictionary"),
    ],
)
def test_files_that_do_not_fit_are_named(write, options, message):
    *files, output = write(**options)
    with pytest.raises(UserError, match=message):
        convert_monica(*files, output, trust_pickle=True)
    assert not output.exists()


def test_damaged_and_missing_files_are_named(write):
    *files, output = write()
    files[1].write_bytes(b"\x93NUMPY broken")
    with pytest.raises(UserError, match=r"train.npy is no array that NumPy can read"):
        convert_monica(*files, output, trust_pickle=True)
    files[1].unlink()
    with pytest.raises(UserError, match="there is no .*train.npy"):
        convert_monica(*files, output, trust_pickle=True)

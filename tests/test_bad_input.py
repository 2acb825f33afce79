"""Every mistake in the data or the configuration ends in one sentence and exit code 2, through the command line."""

import io
import sys
import zipfile
from collections.abc import Callable
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from medbolt.core.cli.main import main

ROWS = [f"{i}.png,{'abc'[i % 3]},{'train' if i < 12 else 'val' if i < 15 else 'test'},p{i}" for i in range(18)]
NUMBERS = {"a": 0, "b": 1, "c": 7}
HEADER = "file,grade,split,patient"
CODE = '''
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from lightning.pytorch import LightningDataModule

class Network(nn.Module):
    def __init__(self, num_classes: int, width: int = 192):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(width, num_classes))

    def forward(self, image):
        return self.layers(image)

class Dicts(list):
    def __getitem__(self, i):
        return {"image": torch.zeros(3, 8, 8), "target": i % 3}

class Foreign(LightningDataModule):
    """Not medbolt's: its batches have no index."""
    num_classes, train_size, fingerprint = 3, 12, ""

    def train_dataloader(self):
        return DataLoader(Dicts(range(12)), batch_size=4)
'''


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a manifest, 18 pictures in three classes and the code of a network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    (tmp_path / "images").mkdir()
    for i in range(18):
        Image.fromarray(picture(i)).save(tmp_path / f"images/{i}.png")
    write(tmp_path, *ROWS)
    (tmp_path / f"{code(tmp_path)}.py").write_text(CODE)
    return tmp_path


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)


def code(folder: Path) -> str:
    return f"code_{abs(hash(folder))}"  # a module of its own in every folder


def write(folder: Path, *rows: str, header: str = HEADER) -> None:
    (folder / "labels.csv").write_text("\n".join([header, *rows]) + "\n")


def configuration(folder: Path, data: dict[str, Any] | None = None, **changes: Any) -> str:
    """Write a configuration, changed where a case wants it, and return its name."""
    table = {
        "manifest": "labels.csv",
        "image": "images/{file}",
        "label": "grade",
        "split": "split",
        "group": "patient",
        "image_size": 8,
        "batch_size": 4,
    } | (data or {})
    network = {"class_path": f"{code(folder)}.Network"}
    task = {"class_path": "medbolt.core.ClassificationTask", "init_args": {"model": network}}
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    tree = {
        "trainer": {"max_epochs": 1, "accelerator": "cpu", **quiet},
        "data": {"class_path": "medbolt.core.TableDataModule", "init_args": table},
        "model": task,
    }
    for path, value in changes.items():
        *parents, last = path.split("__")
        branch = tree
        for name in parents:
            branch = branch.setdefault(name, {})
        branch[last] = value
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return "config.yaml"


def callback(name: str, **arguments: Any) -> list[dict[str, Any]]:
    return [{"class_path": name, "init_args": arguments}]


def a_file(name: str, content: bytes) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(content)


def truncated(folder: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    (folder / "images/3.png").write_bytes(buffer.getvalue()[:900])


def archive(folder: Path) -> None:
    with zipfile.ZipFile(folder / "images.zip", "w") as members:
        for i in range(18):
            members.write(folder / f"images/{i}.png", f"../{i}.png")


def pickled(folder: Path) -> None:
    arrays = {
        f"{split}_{kind}": np.array([{}, {}]) for split in ("train", "val", "test") for kind in ("images", "labels")
    }
    np.savez(folder / "toymnist.npz", **arrays)


def changed(row: int, value: str) -> Callable[[Path], None]:
    return lambda folder: write(folder, *ROWS[:row], value, *ROWS[row + 1 :])


NOTHING: Callable[[Path], None] = lambda folder: None  # noqa: E731
UNREADABLE = (
    "images/3.png (row 5 of labels.csv) is truncated, corrupt or no image; replace it or remove it from the data."
)

# what is done to the folder, what to the configuration, and the whole sentence, with * for paths
CASES: dict[str, tuple[Callable[[Path], None], dict[str, Any], str]] = {
    "missing file": (
        NOTHING,
        {"data": {"manifest": "other.csv"}},
        "there is no other.csv in *; correct the path or set MEDBOLT_DATA to the folder of your data.",
    ),
    "missing image": (
        lambda folder: (folder / "images/3.png").unlink(),
        {},
        "images/3.png (row 5 of labels.csv) not found in .; correct the name or the root folder.",
    ),
    "missing folde": (
        NOTHING,
        {"data__class_path": "medbolt.core.FolderDataModule", "data__init_args": {"root": "nowhere"}},
        "there is no nowhere in *; correct the path or set MEDBOLT_DATA to the folder of your data.",
    ),
    "missing column": (
        NOTHING,
        {"data": {"label": "grad"}},
        "labels.csv has no column 'grad' (did you mean 'grade'?); it has 'file', 'grade', 'split', 'patient'.",
    ),
    "unknown label": (
        NOTHING,
        {"data": {"class_names": ["a", "b"]}},
        "row 4 of labels.csv has the unknown label 'c' in column 'grade'; correct it or class_names ('a', 'b').",
    ),
    "label out of range": (
        lambda folder: write(
            folder, *(row.replace(",a,", ",0,").replace(",b,", ",1,").replace(",c,", ",7,") for row in ROWS)
        ),
        {"data": {"class_names": ["0", "1", "2"]}},
        "row 4 of labels.csv has the unknown label '7' in column 'grade'; correct it or class_names ('0', '1', '2').",
    ),
    "NaN label": (
        changed(4, "4.png,,train,p4"),
        {},
        "row 6 of labels.csv has no value in column 'grade'; fill it in or remove the row.",
    ),
    "corrupt image": (a_file("images/3.png", b"no picture at all"), {}, UNREADABLE),
    "truncated image": (truncated, {}, UNREADABLE),
    "zero-byte image": (a_file("images/3.png", b""), {}, UNREADABLE),
    "class without training samples": (
        lambda folder: write(folder, *(row.replace(",c,train", ",a,train") for row in ROWS)),
        {},
        "class 'c' of TableDataModule without training samples; add some or leave the class out of class_names.",
    ),
    "empty split": (
        lambda folder: write(folder, *(row.replace(",val,", ",train,") for row in ROWS)),
        {},
        "the val split of TableDataModule is empty; give it samples or another rule.",
    ),
    "duplicate ids": (
        changed(4, ROWS[3]),
        {"data": {"id": "file"}},
        "row 5 of labels.csv and row 6 of labels.csv have the same id '3.png'; remove one or name "
        "a column of unique ids.",
    ),
    "patient in two splits": (
        changed(13, "13.png,b,val,p0"),
        {},
        "patient 'p0' is in the splits train and val; move all its images into one split, or set allow_group_overlap.",
    ),
    "text that is not UTF-8": (
        lambda folder: (folder / "labels.csv").write_bytes(b"file,grade\n\xff\xfe,a\n"),
        {},
        "labels.csv is not UTF-8 (byte 0xff); save it anew with UTF-8 encoding.",
    ),
    "ragged CSV": (
        changed(4, "4.png,b"),
        {},
        "line 6 of labels.csv has 2 cells and the header 4; quote cells that contain commas.",
    ),
    "member outside its archive": (
        archive,
        {"data": {"image": "images.zip/../{file}"}},
        "images.zip/../0.png (row 2 of labels.csv) points out of its archive; name members by their path inside it.",
    ),
    "pickled objects": (
        pickled,
        {
            "data__class_path": "medbolt.core.MedMNISTDataModule",
            "data__init_args": {"name": "toymnist", "root": ".", "image_size": 8},
        },
        "array 'train_labels' of toymnist.npz holds pickled Python objects, "
        "which are never loaded; save it as numbers.",
    ),
    "no such criterion": (
        NOTHING,
        {"trainer__callbacks": callback("medbolt.noisy.EarlyLearningRegularization", criterion="los")},
        "ClassificationTask has no criterion 'los'; it has 'criterion': pass criterion='criterion', or *.",
    ),
    "no index": (
        NOTHING,
        {"data": "foreign", "trainer__callbacks": callback("medbolt.noisy.EarlyLearningRegularization")},
        "this method needs to know which samples a batch holds, but the batch carries no 'index'; "
        "wrap the data module, *.",
    ),
    "unknown key": (
        NOTHING,
        {"trainer__max_epoch": 3},
        "unknown configuration key 'trainer.max_epoch' (did you mean 'trainer.max_epochs'?).",
    ),
    "batch larger than the data": (
        NOTHING,
        {"data": {"batch_size": 64, "drop_last": True}},
        "batch_size 64 with drop_last leaves no batch of the 12 training samples of a process; "
        "lower batch_size or set *.",
    ),
    "fractions": (
        NOTHING,
        {"data": {"split": None, "fractions": [0.5, 0.1, 0.1]}},
        "fractions must be positive and add up to 1, got (0.5, 0.1, 0.1)",
    ),
    "output folder not writable": (
        a_file("runs", b"a file where the folder should be"),
        {"trainer__logger": {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs"}}},
        "Not a directory: '*runs/lightning_logs'.",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_one_sentence_and_exit_code_2(case, folder, capsys):
    spoil, changes, sentence = CASES[case]
    spoil(folder)
    if changes.get("data") == "foreign":
        changes = {**changes, "data": None, "data__class_path": f"{code(folder)}.Foreign", "data__init_args": {}}
    assert main(["fit", "-c", configuration(folder, **changes)]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medbolt: error: ")]
    assert len(lines) == 1
    said = lines[0].removeprefix("medbolt: error: ")
    assert fnmatchcase(said, sentence), said

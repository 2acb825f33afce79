"""Every mistake in data or configuration ends in one sentence and exit code 2, through the command line itself."""

import os
import resource
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch  # noqa: F401  # its log handler would keep the first test's stream
import numpy as np
import pytest
import yaml
from PIL import Image

from medbolt.core import UserError
from medbolt.core.cli.main import main

COLUMNS = "'file', 'grade', 'split', 'patient', 'red', 'soft'"
HEADER = "file,grade,split,patient,red,soft"
ROWS = [
    f"{i}.png,{'abc'[i % 3]},{'train' if i < 12 else 'val' if i < 15 else 'test'},p{i},{i % 2},{i % 5 // 2 % 2}"
    for i in range(18)
]
PREPARE = ("data", "prepare", "labels.csv", "--image", "images/{file}", "--size", "64", "--workers", "0")
NO_SPACE = (
    "there is no space for the store store, which needs 0.000221 GB; "
    "free some, then run the preparation again to go on."
)
LINEAR = {"class_path": "medbolt.core.ClassificationTask", "init_args": {"model": {"class_path": "tiny.Linear"}}}


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A working folder with a manifest of 18 pictures in three classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MEDBOLT_DATA", raising=False)
    (tmp_path / "images").mkdir()
    for i in range(18):
        Image.fromarray(noise(i)).save(tmp_path / f"images/{i}.png")
    write_manifest(ROWS)
    return tmp_path


@pytest.fixture
def refused(folder, capsys) -> Callable[..., str]:
    """Return a function that runs a command line, which must be refused, and returns the sentence."""

    def run(*args: str) -> str:
        capsys.readouterr()
        assert main([*args]) == 2
        *before, last = capsys.readouterr().err.splitlines()
        assert not [line for line in before if "medbolt: error" in line or "Traceback" in line]
        assert last.startswith("medbolt: error: ")
        return last.removeprefix("medbolt: error: ").replace(str(folder), "FOLDER")

    return run


def noise(seed: int, side: int = 8) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def write_manifest(rows: list[str]) -> None:
    Path("labels.csv").write_text("\n".join([HEADER, *rows]) + "\n")


def configured(
    data: dict[str, Any] | None = None, model: dict[str, Any] = LINEAR, seed: int = 0, **trainer: Any
) -> list[str]:
    """Write a configuration and return the command line that trains one step with it.

    Args:
        data: Arguments of the table, or a whole data module.
        model: The module.
        seed: What everything is seeded by.
        trainer: What the trainer has otherwise.
    """
    table = {"manifest": "labels.csv", "image": "images/{file}", "label": "grade", "split": "split"}
    table |= {"image_size": 8, "batch_size": 4}
    if data is None or "class_path" not in data:
        data = {"class_path": "medbolt.core.TableDataModule", "init_args": table | (data or {})}
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = {"accelerator": "cpu", "max_steps": 1, "num_sanity_val_steps": 0, **quiet, **trainer}
    Path("fit.yaml").write_text(
        yaml.safe_dump({"seed_everything": seed, "trainer": trainer, "data": data, "model": model})
    )
    return ["fit", "-c", "fit.yaml"]


def task(**arguments: Any) -> dict[str, Any]:
    return {**LINEAR, "init_args": {**LINEAR["init_args"], **arguments}}


def callbacks(name: str, **arguments: Any) -> list[dict[str, Any]]:
    return [{"class_path": name, "init_args": arguments}]


def transformed(name: str, **arguments: Any) -> dict[str, Any]:
    return {"train_transform": {"class_path": name, "init_args": arguments}}


def synthetic(**arguments: Any) -> dict[str, Any]:
    return {"class_path": "medbolt.core.SyntheticFundusDataModule", "init_args": arguments}


def subset(**arguments: Any) -> dict[str, Any]:
    return {"class_path": "medbolt.core.Subset", "init_args": {"data": synthetic(), **arguments}}


def relabelled(old: str, new: str, first: int = 0, last: int = 18) -> Callable[[], None]:
    """Return a function that changes what stands in some rows of the manifest."""
    return lambda: write_manifest([row.replace(old, new) if first <= i < last else row for i, row in enumerate(ROWS)])


def numbered() -> None:
    write_manifest([row.replace(",a,", ",0,").replace(",b,", ",1,").replace(",c,", ",3,") for row in ROWS])


def archived() -> None:
    with zipfile.ZipFile("images.zip", "w") as members:
        members.write("images/0.png", "../0.png")


def pickled() -> None:
    np.savez("scans.npz", images=np.array([noise(0)] * 18 + [None], dtype=object))
    relabelled(".png", "")()


def nothing() -> None:
    pass


# what is done to the folder, what the data module is told, and the sentence
DATA: dict[str, tuple[Callable[[], Any], dict[str, Any], str]] = {
    "missing manifest": (
        nothing,
        {"manifest": "other.csv"},
        "there is no other.csv in 'FOLDER'; correct the path or set MEDBOLT_DATA to the folder of your data.",
    ),
    "missing image": (
        lambda: Path("images/3.png").unlink(),
        {},
        "images/3.png (row 5 of labels.csv) not found in .; correct the name or the root folder.",
    ),
    "missing archive": (
        nothing,
        {"image": "nowhere.zip/{file}"},
        "there is no archive nowhere.zip; correct the path or the root folder.",
    ),
    "missing folder": (
        nothing,
        {"root": "nowhere"},
        "there is no nowhere in 'FOLDER'; correct the path or set MEDBOLT_DATA to the folder of your data.",
    ),
    "missing folder of class folders": (
        nothing,
        {"class_path": "medbolt.core.FolderDataModule", "init_args": {"root": "nowhere"}},
        "there is no nowhere in 'FOLDER'; correct the path or set MEDBOLT_DATA to the folder of your data.",
    ),
    "missing column": (
        nothing,
        {"label": "grad"},
        f"labels.csv has no column 'grad' (did you mean 'grade'?); it has {COLUMNS}.",
    ),
    "missing column of a pattern": (
        nothing,
        {"image": "images/{fil}"},
        f"labels.csv has no column 'fil' (did you mean 'file'?); it has {COLUMNS}.",
    ),
    "unknown label": (
        relabelled(",c,", ",bb,", 5, 6),
        {"class_names": ["a", "b", "c"]},
        (
            "row 7 of labels.csv has the unknown label 'bb' in column 'grade' (did you mean 'b'?); correct it "
            "or class_names ('a', 'b', 'c')."
        ),
    ),
    "label out of range": (
        numbered,
        {"class_names": ["none", "mild", "severe"]},
        (
            "row 4 of labels.csv has the unknown label '3' in column 'grade'; correct it or class_names "
            "('none', 'mild', 'severe')."
        ),
    ),
    "finding out of range": (
        numbered,
        {"label": ["grade", "grade"]},
        "row 4 of labels.csv has the label '3' in column 'grade'; findings are 0 or 1, or a probability between.",
    ),
    "one finding in a list": (
        numbered,
        {"label": ["grade"]},
        "TableDataModule: label=['grade'] is a list for several findings; name a single label column without brackets.",
    ),
    "empty label": (
        relabelled(",b,", ",,", 4, 5),
        {},
        "row 6 of labels.csv has no value in column 'grade'; fill it in or remove the row.",
    ),
    "NaN label": (
        relabelled(",b,", ",NaN,", 4, 5),
        {},
        "row 6 of labels.csv has no value in column 'grade'; fill it in or remove the row.",
    ),
    "corrupt image": (
        lambda: Path("images/0.png").write_bytes(b"no picture at all"),
        {},
        (
            "images/0.png (row 2 of labels.csv) is truncated, corrupt or no image; replace it or remove it from"
            " the data."
        ),
    ),
    "truncated image": (
        lambda: os.truncate("images/0.png", 60),
        {},
        (
            "images/0.png (row 2 of labels.csv) is truncated, corrupt or no image; replace it or remove it from"
            " the data."
        ),
    ),
    "zero-byte image": (
        lambda: os.truncate("images/0.png", 0),
        {},
        (
            "images/0.png (row 2 of labels.csv) is truncated, corrupt or no image; replace it or remove it from"
            " the data."
        ),
    ),
    "images of different sizes": (
        lambda: Image.fromarray(noise(0, 9)).save("images/0.png"),
        {"image_size": None, "batch_size": 12, **transformed("medbolt.core.EvaluationTransform", image_size=None)},
        (
            "image has shape (3, 8, 8) in sample 'images/5.png' and (3, 9, 9) in 'images/0.png', but a batch "
            "needs one; set image_size or let the transform resize, or set batch_size to 1."
        ),
    ),
    "empty split": (
        relabelled(",val,", ",test,"),
        {},
        "the val split of TableDataModule is empty; give it samples or another rule.",
    ),
    "unknown split": (
        relabelled(",val,", ",vall,", 13, 14),
        {},
        "row 15 of labels.csv is in split 'vall' (did you mean 'val'?); splits are called train, val and test.",
    ),
    "duplicate images": (
        relabelled("4.png", "3.png", 4, 5),
        {},
        (
            "row 5 of labels.csv and row 6 of labels.csv have the same id 'images/3.png'; remove one or name a "
            "column of unique ids."
        ),
    ),
    "duplicate ids": (
        relabelled(",p4", ",p3", 4, 5),
        {"id": "patient"},
        (
            "row 5 of labels.csv and row 6 of labels.csv have the same id 'p3'; remove one or name a column of "
            "unique ids."
        ),
    ),
    "patient in two splits": (
        relabelled(",p12", ",p0"),
        {"group": "patient"},
        (
            "patient 'p0' is in the splits train and val; move all its images into one split, or set "
            "allow_group_overlap."
        ),
    ),
    "not UTF-8": (
        lambda: Path("labels.csv").write_bytes(b"file,grade\n0.png,l\xe9ger\n"),
        {},
        "labels.csv is not UTF-8 (byte 0xe9); save it anew with UTF-8 encoding.",
    ),
    "ragged CSV": (
        relabelled(",train,p4", "", 4, 5),
        {},
        "line 6 of labels.csv has 4 cells and the header 6; quote cells that contain commas.",
    ),
    "CSV without rows": (
        lambda: write_manifest([]),
        {},
        "labels.csv has no rows; add one an image.",
    ),
    "archive member that escapes": (
        archived,
        {"image": "images.zip/../{file}"},
        "images.zip/../0.png (row 2 of labels.csv) points out of its archive; name members by their path inside it.",
    ),
    "npz with pickled objects": (
        pickled,
        {"image": "scans.npz/images/{file}"},
        "array 'images' of scans.npz holds pickled Python objects, which are never loaded; save it as numbers.",
    ),
    "shares that do not add up": (
        nothing,
        {"split": None, "fractions": [0.5, 0.1, 0.1]},
        "fractions must be three numbers, of training, validation and test, none negative, that add up to 1, "
        "got (0.5, 0.1, 0.1).",
    ),
    "round of a cross-validation": (
        nothing,
        {"split": None, "folds": 3, "fold": 3},
        "fold must be 0 to folds - 1 of at least 2 folds, 3 without a test set; got fold 3 of 3.",
    ),
    "batch larger than the data": (
        nothing,
        {"batch_size": 13, "drop_last": True},
        (
            "batch_size 13 with drop_last leaves no batch of the 12 training samples of a process; lower "
            "batch_size or set drop_last to 'auto'."
        ),
    ),
    "batch of nothing": (
        nothing,
        {"batch_size": 0},
        "batch_size of TableDataModule must be a whole number from 1 on, got 0.",
    ),
}

FOREIGN = {"data": {"class_path": "tiny.Tuples"}, "model": {"class_path": "foreign_modules.DocumentationStyle"}}

# how the configuration differs, and the sentence
CONFIGURATIONS: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key of the trainer": (
        {"max_epoch": 3},
        "unknown configuration key 'trainer.max_epoch' (did you mean 'trainer.max_epochs'?).",
    ),
    "unknown key of a class": (
        {"data": {"batchsize": 3}},
        "unknown configuration key 'batchsize' of medbolt.core.TableDataModule (did you mean 'batch_size'?).",
    ),
    "another word": (
        {"model": task(task="regression")},
        "'task' must be 'multiclass', 'binary', 'multilabel' or 'ordinal', got 'regression'.",
    ),
    "refused by the task": (
        {"model": task(task="binary")},
        "ClassificationTask: a binary task has 2 classes, got num_classes=3.",
    ),
    "task of several findings, data of one class": (
        {"model": task(task="multilabel")},
        "task 'multilabel' needs several findings a sample, but the data have one class a sample; set task to "
        "'multiclass', 'ordinal' or 'binary'.",
    ),
    "task of one class, data of several findings": (
        {"data": {"label": ["red", "soft"]}},
        "task 'multiclass' needs one class a sample, but the data have several findings a sample; set task to "
        "'multilabel'.",
    ),
    "metric that nothing logs": (
        {"callbacks": callbacks("EarlyStopping", monitor="val/accurcy"), "max_steps": 3},
        "Early stopping conditioned on metric `val/accurcy` which is not available. Pass in or modify your "
        "`EarlyStopping` callback to use any of the following: `train/loss_step`, `val/loss`, `val/accuracy`, "
        "`val/auroc`, `val/balanced_accuracy`, `val/ece`, `train/loss`",
    ),
    "refused by a callback": (
        {"callbacks": callbacks("medbolt.core.MixUp", alpha=-1)},
        "MixUp: alpha must be positive, got -1.0.",
    ),
    "refused by a transform": (
        {"data": transformed("medbolt.core.StrongTransform", strength=3)},
        "StrongTransform: strength and erased must be in [0, 1], got 3.0 and 0.15.",
    ),
    "refused by a transform of transforms": (
        {"data": transformed("medbolt.core.MultiView", transforms=[])},
        "MultiView needs at least two transforms, got 0.",
    ),
    "refused by a wrapper": ({"data": subset(fraction=2)}, "Subset: fraction must be in (0, 1], got 2.0."),
    "refused by an optimizer": (
        {"model": task(optimizer={"class_path": "torch.optim.AdamW", "init_args": {"lr": -1}})},
        "AdamW: Invalid learning rate: -1.0.",
    ),
    "refused by the trainer": (
        {"devices": 0},
        "`Trainer(devices=0)` value is not a valid input using cpu accelerator.",
    ),
    "refused by the seed": ({"seed": -1}, "seed_everything: -1 is not in bounds, numpy accepts from 0 to 4294967295."),
    "size of synthetic pictures": (
        {"data": synthetic(image_size=16)},
        "image_size must be 32 to 512 pixels, got 16.",
    ),
    "cameras of synthetic pictures": (
        {"data": synthetic(train_domains=[4])},
        "domains must be different numbers of cameras, 0 to 3, got [4].",
    ),
    "prevalence of synthetic grades": (
        {"data": synthetic(prevalence=[1, 1])},
        "prevalence must be 5 numbers of at least 0, not all 0, got [1.0, 1.0].",
    ),
    "number of synthetic pictures": (
        {"data": synthetic(num_train=0)},
        "num_train must be at least 1, num_val and num_test not negative, got 0, 200 and 400.",
    ),
    "criterion absent": (
        {"callbacks": callbacks("medbolt.core.ObjectiveCallback", criterion="nonsense")},
        (
            "ClassificationTask has no criterion 'nonsense'; it has 'criterion': pass criterion='criterion', or"
            " criterion='functional' if its training_step calls torch.nn.functional.cross_entropy itself."
        ),
    ),
    "index absent": (
        {**FOREIGN, "callbacks": callbacks("tiny.ByIndex", criterion="functional")},
        (
            "this method needs to know which samples a batch holds, but the batch carries no 'index'; wrap the "
            "data module, trainer.fit(model, datamodule=medbolt.core.Indexed(datamodule)), or yield dict "
            "batches with an 'index' key."
        ),
    ),
    "memory of samples that nobody counts": (
        {**FOREIGN, "callbacks": callbacks("tiny.ByIndex", criterion="functional", remembers=True)},
        (
            "ByIndex keeps a memory of every training sample, but the data do not say how many there are; pass "
            "a data module, wrapped if it is not medbolt's: datamodule=medbolt.core.Indexed(datamodule)."
        ),
    ),
}


@pytest.mark.parametrize("case", DATA)
def test_data(case, refused):
    spoil, data, sentence = DATA[case]
    spoil()
    assert refused(*configured(data)) == sentence


def test_what_the_trainer_refuses_by_a_value_error(refused):
    assert refused(*configured(strategy="dpp")).startswith("Trainer: You selected an invalid strategy name: ")


@pytest.mark.parametrize("case", CONFIGURATIONS)
def test_configurations(case, refused):
    changes, sentence = CONFIGURATIONS[case]
    assert refused(*configured(**changes)) == sentence


def test_a_class_without_training_samples_whose_count_the_loss_needs(refused):
    relabelled(",c,", ",a,", 0, 12)()
    loss = {"class_path": "medbolt.longtail.BalancedSoftmaxLoss"}
    assert refused(*configured(model=task(criterion=loss))) == (
        "class 'c' of TableDataModule is without training samples; add some or leave the class out of class_names."
    )


def test_a_value_error_of_training_keeps_its_traceback(folder):
    with pytest.raises(ValueError, match="raised in training"):
        main(configured(model=task(model={"class_path": "tiny.Linear", "init_args": {"fails": True}})))


def test_the_traceback_of_a_refusal_can_be_asked_for(folder, monkeypatch):
    monkeypatch.setenv("MEDBOLT_TRACEBACK", "1")
    with pytest.raises(UserError, match="a binary task has 2 classes") as raised:
        main(configured(model=task(task="binary")))
    assert type(raised.value.__cause__) is ValueError


@pytest.mark.parametrize("mode", ["I;16", "L", "RGBA", "P"])
def test_images_of_any_depth_are_accepted(mode, folder):
    for path in Path("images").iterdir():
        pixels = noise(0)[..., 0]
        image = Image.fromarray(pixels.astype(np.uint16) * 257) if mode == "I;16" else Image.open(path).convert(mode)
        image.save(path)
    assert Image.open("images/0.png").mode == mode
    assert main(configured()) == 0


def test_a_patient_in_two_splits_is_allowed_when_asked(folder):
    relabelled(",p12", ",p0")()
    assert main(configured({"group": "patient", "allow_group_overlap": True})) == 0


def resumed(*arguments: str) -> tuple[str, ...]:
    return (*arguments, "--ckpt_path", str(next(Path().rglob("*.ckpt"))), "--trainer.max_steps", "2")


KEEP = {"enable_checkpointing": True}


def test_a_checkpoint_of_other_data(refused):
    assert main(configured(**KEEP)) == 0
    relabelled(",a,", ",b,", 0, 1)()
    assert refused(*resumed(*configured(**KEEP))) == (
        "the checkpoint belongs to other training data (ids, labels or subset differ); resume with the data"
        " it was trained on, or start anew from its weights."
    )


def test_a_checkpoint_of_other_classes(refused):
    assert main(configured(**KEEP)) == 0
    relabelled(",c,", ",d,")()
    assert refused(*resumed(*configured(**KEEP))) == (
        "the checkpoint was trained on classes 'a', 'b', 'c', these data have 'a', 'b', 'd'; use a "
        "checkpoint trained on these classes."
    )


def test_a_checkpoint_of_another_data_module(refused):
    assert main(configured(**KEEP)) == 0
    Path("other").mkdir()
    for i, row in enumerate(ROWS):
        place = Path("other", row.split(",")[2], row.split(",")[1], f"{i}.png")
        place.parent.mkdir(parents=True, exist_ok=True)
        Path(f"images/{i}.png").rename(place)
    data = {"root": "other", "image_size": 8}
    other = {"class_path": "medbolt.core.FolderDataModule", "init_args": data}
    assert refused(*resumed(*configured(other, **KEEP))) == (
        "the checkpoint was not trained on FolderDataModule; resume with the data it was trained on, or "
        "start anew from its weights."
    )


def test_a_memory_of_other_data(refused):
    def wrapped(shift: int) -> list[str]:
        data = {"class_path": "tiny.Tuples", "init_args": {"shift": shift}}
        changes = {"data": {"class_path": "medbolt.core.Indexed", "init_args": {"data": data}}}
        method = callbacks("tiny.ByIndex", criterion="functional", remembers=True)
        return configured(**{**FOREIGN, **changes}, callbacks=method, **KEEP)

    assert main(wrapped(0)) == 0
    assert refused(*resumed(*wrapped(1))) == (
        "the checkpoint's per-sample memory belongs to other training data (8 samples, 0d18a2db "
        "fingerprint; here 8 samples, e34a94b9 fingerprint); resume with the data it was trained on."
    )


def test_a_folder_that_cannot_be_written(refused):
    Path("runs").write_text("a file where the folder should be")
    logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": {"save_dir": "runs"}}
    sentence = "Not a directory: 'FOLDER/runs/lightning_logs'; choose another or make it accessible."
    assert refused(*configured(logger=logger)) == sentence
    sentence = "runs/store cannot be written (Not a directory); choose another folder."
    assert refused(*PREPARE, "--output", "runs/store") == sentence


def test_a_disk_that_is_too_small_for_the_store(refused, monkeypatch):
    usage = shutil.disk_usage(".")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100_000))
        assert refused(*PREPARE, "--output", "store") == NO_SPACE
    assert not list(Path("store").iterdir())


@contextmanager
def full_after(size: int) -> Iterator[None]:
    """Let no file grow beyond a size: writing then fails like on a full disk, for root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up_while_the_store_is_written_leaves_nothing_that_is_read(refused):
    with full_after(100_000):
        assert refused(*PREPARE, "--output", "store") == NO_SPACE
    assert 0 < Path("store/image.npy").stat().st_size <= 100_000
    sentence = "store holds an unfinished store; run the preparation again to go on (medbolt data prepare makes one)."
    assert refused(*configured({"store": "store"})) == sentence
    assert main([*PREPARE, "--output", "store"]) == 0
    assert main(configured({"store": "store"})) == 0
    assert main([*PREPARE, "--output", "whole"]) == 0
    assert Path("store/image.npy").read_bytes() == Path("whole/image.npy").read_bytes()


@pytest.mark.slow
@pytest.mark.ddp
def test_more_processes_than_samples(folder):
    relabelled(",val,", ",test,", 13, 15)()
    command = Path(sys.executable).with_name("medbolt")
    arguments = [*configured(), "--trainer.devices", "2", "--trainer.strategy", "ddp"]
    paths = os.pathsep.join([*sys.path, os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "PYTHONPATH": paths}
    done = subprocess.run([command, *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    told = {line for line in done.stderr.splitlines() if "medbolt: error" in line}  # one a process
    assert told == {"medbolt: error: the val split has 1 samples for 2 processes; use fewer devices."}

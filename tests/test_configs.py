"""Every YAML file in lightning_configs runs through the real command line, with the layers it is made for."""

import importlib
import inspect
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from lightning.pytorch import Callback, LightningModule
from torch.utils.data import Sampler

from medbolt.core import TimmClassifier
from medbolt.core.cli.main import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "lightning_configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
DATA, MODEL = Path("data/synthetic_fundus.yaml"), Path("model/resnet10t.yaml")
RESAMPLED, FINDINGS = Path("data/synthetic_fundus_balanced.yaml"), Path("data/chestmnist.yaml")
MULTILABEL = Path("method/longtail/weighted_bce.yaml")
SMALL = {"medbolt.core.SyntheticFundusDataModule": {"num_train": 100, "num_val": 8, "num_test": 8, "image_size": 32}}
GREY = Path("study/medmnist_resnet18_grey.yaml")
OF_THE_USER = {
    Path(f"method/longtail/{name}.yaml"): ["checkpoint=pretrained.ckpt", "prefix=backbone."]
    for name in ("initialize_from", "initialize_from_autoencoder")
}
"""Options of a layer's callback that only its user can give."""

WITHOUT_LAYER = {
    "medbolt.longtail.ClassCountsLoss": "a base",
    "medbolt.longtail.ClassCounts": "for modules of others; ClassificationTask tells the counts by itself",
}
"""Losses, samplers, heads, callbacks and tasks without a layer, and why."""


def layers(file: Path) -> list[Path]:
    """Return the layers to compose a file with, in order."""
    kind = file.parts[0]
    if len(file.parts) == 1:
        return [file]
    if file == GREY:
        return [Path("data/breastmnist.yaml"), Path("study/medmnist_resnet18.yaml"), file]
    if kind == "study":
        return [Path("data/retinamnist.yaml"), file]
    if file == FINDINGS:
        return [file, MODEL, MULTILABEL]
    return {"data": [file, MODEL], "model": [DATA, file]}.get(kind, [data_for(file), MODEL, file])


def data_for(file: Path) -> Path:
    """Return the data layer that a method asks for."""
    spec = yaml.safe_load((CONFIGS / file).read_text())
    if "sampler" in spec.get("data", {}).get("init_args", {}):
        return RESAMPLED
    return FINDINGS if spec.get("model", {}).get("init_args", {}).get("task") == "multilabel" else DATA


def options(files: list[Path]) -> list[str]:
    """Return what makes a run short: one batch on one CPU process, of little data where it is generated."""
    specs = [yaml.safe_load((CONFIGS / file).read_text()).get("data", {}) for file in files]
    (spec,) = [spec for spec in specs if "class_path" in spec]
    key = "--data"
    while "data" in spec.get("init_args", {}):  # a wrapper: the options are those of what it wraps
        spec, key = spec["init_args"]["data"], f"{key}.init_args.data"
    small = {"batch_size": 4, **SMALL.get(spec["class_path"], {})}
    run = ["accelerator=cpu", "devices=1", "fast_dev_run=1", "enable_progress_bar=false", "precision=32-true"]
    return [
        *(f"{key}.init_args.{name}={value}" for name, value in small.items()),
        *(f"--trainer.callbacks.{option}" for option in OF_THE_USER.get(files[-1], [])),
        *(f"--trainer.{option}" for option in run),
    ]


def write_what_a_user_has(files: list[Path]) -> None:
    """Write a small file of the form of ChestMNIST and pre-trained weights, for the layers that need them."""
    if FINDINGS in files:
        rng = np.random.default_rng(0)
        arrays = {}
        for split in ("train", "val", "test"):
            arrays[f"{split}_images"] = rng.integers(0, 256, (16, 28, 28), np.uint8)
            arrays[f"{split}_labels"] = np.concatenate([np.eye(14, dtype=np.uint8), np.zeros((2, 14), np.uint8)])
        Path("medmnist").mkdir()
        np.savez("medmnist/chestmnist.npz", **arrays)
    if files[-1] in OF_THE_USER:
        weights = TimmClassifier("resnet10t", 5).features.state_dict()
        torch.save({"state_dict": {f"backbone.{name}": value for name, value in weights.items()}}, "pretrained.ckpt")


@pytest.mark.parametrize("file", FILES, ids=str)
def test_fit_and_test(file, request, tmp_path, monkeypatch):
    files = layers(file)
    if any(f.parts[0] == "data" and f not in (DATA, RESAMPLED, FINDINGS) for f in files):
        monkeypatch.setenv("MEDBOLT_DATA", str(request.getfixturevalue("shared_data")))
    monkeypatch.chdir(tmp_path)
    write_what_a_user_has(files)
    arguments = [argument for f in files for argument in ("-c", str(CONFIGS / f))] + options(files)
    assert main(["fit", *arguments]) == 0
    assert main(["test", *arguments]) == 0


@pytest.mark.parametrize(
    ("layer", "option"),
    [(name, "init_from") for name in ("crt", "lws", "mislas", "disalign", "gcl_second_stage", "gcl_second_stage_mixup")]
    + [(name, "checkpoint") for name in ("initialize_from", "initialize_from_autoencoder")],
)
def test_composed_last_a_layer_is_given_the_weights_it_begins_with(layer, option, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = [DATA, MODEL, Path("trainer/default.yaml"), Path(f"method/longtail/{layer}.yaml")]
    arguments = [argument for file in files for argument in ("-c", str(CONFIGS / file))] + options(files[:2])
    assert main(["fit", *arguments, f"--trainer.callbacks.{option}=first.ckpt"]) == 2
    assert "first.ckpt" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_begins_by_saying_what_it_is_for(file):
    assert (CONFIGS / file).read_text().startswith("# ")


def test_every_method_is_in_a_layer_or_a_study():
    paths = [*CONFIGS.rglob("*.yaml"), *(ROOT / "studies").glob("*.yaml")]
    text = re.sub("#.*", "", "\n".join(path.read_text() for path in paths))
    # compared as objects: a method may be named by the package that it moved to
    named = {
        getattr(importlib.import_module(package), name) for package, name in re.findall(r"(medbolt\.\w+)\.(\w+)", text)
    }
    methods = {
        f"{package}.{name}": exported
        for package in ("medbolt.longtail", "medbolt.noisy")
        for name in importlib.import_module(package).__all__
        if inspect.isclass(exported := getattr(importlib.import_module(package), name))
        if issubclass(exported, Callback | Sampler | LightningModule) or name.endswith(("Loss", "Head"))
    }
    assert {name for name, method in methods.items() if method not in named} == set(WITHOUT_LAYER)

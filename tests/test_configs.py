"""Every YAML file in lightning_configs runs through the real command line, with the layers it is made for."""

from pathlib import Path

import pytest
import yaml

from medbolt.core.cli.main import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "lightning_configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
DATA, MODEL = Path("data/synthetic_fundus.yaml"), Path("model/resnet10t.yaml")
SMALL = {"medbolt.core.SyntheticFundusDataModule": {"num_train": 100, "num_val": 8, "num_test": 8, "image_size": 32}}


def layers(file: Path) -> list[Path]:
    """Return the layers to compose a file with, in order."""
    kind = file.parts[0]
    if len(file.parts) == 1:
        return [file]
    if kind == "study":
        return [Path("data/retinamnist.yaml"), file]
    return {"data": [file, MODEL], "model": [DATA, file]}.get(kind, [DATA, MODEL, file])


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
        *(f"--trainer.{option}" for option in run),
    ]


@pytest.mark.parametrize("file", FILES, ids=str)
def test_fit_and_test(file, request, tmp_path, monkeypatch):
    files = layers(file)
    if any(f.parts[0] == "data" and f != DATA for f in files):
        monkeypatch.setenv("MEDBOLT_DATA", str(request.getfixturevalue("shared_data")))
    monkeypatch.chdir(tmp_path)
    arguments = [argument for f in files for argument in ("-c", str(CONFIGS / f))] + options(files)
    assert main(["fit", *arguments]) == 0
    assert main(["test", *arguments]) == 0


@pytest.mark.parametrize("file", FILES, ids=str)
def test_a_file_begins_by_saying_what_it_is_for(file):
    assert (CONFIGS / file).read_text().startswith("# ")

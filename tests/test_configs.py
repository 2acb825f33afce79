"""Every YAML file in lightning_configs runs through the real command line, with the layers it is made for."""

from pathlib import Path

import pytest
import yaml

from medbolt.core.cli.main import main

ROOT = Path(__file__).parent.parent
CONFIGS = ROOT / "lightning_configs"
FILES = sorted(path.relative_to(CONFIGS) for path in CONFIGS.rglob("*.yaml"))
DATA, MODEL = Path("data/synthetic_fundus.yaml"), Path("model/resnet10t.yaml")
SMALL = {"medbolt.core.SyntheticFundusDataModule": {"num_train": 16, "num_val": 8, "num_test": 8, "image_size": 32}}


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
    content = [yaml.safe_load((CONFIGS / file).read_text()) for file in files]
    (class_path,) = {c["data"]["class_path"] for c in content if "class_path" in c.get("data", {})}
    small = [f"--data.{name}={value}" for name, value in SMALL.get(class_path, {}).items()]
    run = ["accelerator=cpu", "devices=1", "fast_dev_run=1", "enable_progress_bar=false", "precision=32-true"]
    return [*small, "--data.batch_size=4", *(f"--trainer.{option}" for option in run)]


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

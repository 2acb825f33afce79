"""What README and guides say: the set-up commands, the packages there are, and what runs as it stands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image
from workspace import ROOT, exports, packages

from medbolt.core.cli.main import main

README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
RUNNABLE = [page for page in PAGES if page.stem != "contracts"]  # which shows a signature, no script


def code(page: Path, language: str) -> list[str]:
    """Return the code blocks of a page in a language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return [block for name, block in blocks if name == language]


@pytest.fixture
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Enter a folder with the table and the images that the guides talk of."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    rows = ["file,grade,patient,hospital"]
    for number in range(60):
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(tmp_path / f"images/{number:04}.png")
        rows.append(f"{number:04}.png,{number // 2 % 3},patient {number // 2},{('north', 'south')[number % 4 // 2]}")
    (tmp_path / "my_data.csv").write_text("\n".join(rows), encoding="utf-8")
    (tmp_path / "issues/folds").mkdir(parents=True)
    for fold in range(2):  # what "medbolt issues" leaves behind
        probability = rng.dirichlet(np.ones(3), 30)
        columns = {f"p_{k}": probability[:, k] for k in range(3)}
        table = pd.DataFrame({"id": [f"{fold}{i}" for i in range(30)], "target": np.arange(30) % 3, **columns})
        table.to_parquet(tmp_path / f"issues/folds/{fold}.parquet")
    return tmp_path


@pytest.mark.parametrize(
    "command",
    [
        "python -m pip install uv && uv run medbolt fit --config lightning_configs/quickstart.yaml",
        "python -m pip install uv && uv run pytest",
    ],
)
def test_the_readme_sets_up_and_runs_in_one_line(command: str):
    assert code(ROOT / "README.md", "").count(f"{command}\n") == 1


def test_the_readme_s_table_says_which_packages_exist():
    status = dict(re.findall(r"^\| `(medbolt\S*)` \| `medbolt\.\w+` \|.*\| (exists|planned) \|$", README, re.MULTILINE))
    existing = {package.distribution for package in packages().values() if exports(package)}
    assert {name for name, word in status.items() if word == "exists"} == existing


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_to_files(page: Path):
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_configurations_that_are_named_exist(page: Path):
    named = set(re.findall(r"lightning_configs/[\w/]+\.yaml", page.read_text(encoding="utf-8")))
    assert sorted(name for name in named if not (ROOT / name).exists()) == []


@pytest.mark.slow
def test_data_commands_run_as_they_stand(working_folder: Path, capsys: pytest.CaptureFixture[str]):
    page = ROOT / "docs/own_data.md"
    Path("my_data.yaml").write_text(code(page, "yaml")[0], encoding="utf-8")
    commands = [line for block in code(page, "") for line in block.splitlines() if line.startswith("medbolt data")]
    assert [main(shlex.split(command)[1:]) for command in commands] == [0, 0], capsys.readouterr()
    assert Path("check.html").exists()


def documented_fits() -> list[str]:
    """Return the ``medbolt fit`` lines that need neither files of the user nor an earlier run."""
    lines = {line for page in PAGES for block in code(page, "") for line in block.splitlines()}
    fits = {line for line in lines if line.startswith("medbolt fit ")}
    return sorted(line for line in fits if "my_" not in line and "--ckpt_path" not in line)


def test_fits_are_documented():
    methods = [line for line in documented_fits() if "/method/" in line]
    assert methods, "no page shows how a method is added by a layer"
    assert any("lightning_configs" not in line for line in documented_fits()), "nothing runs without a checkout"


@pytest.mark.slow
@pytest.mark.parametrize("line", documented_fits())
def test_fits_run_as_they_stand(
    line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
):
    arguments = shlex.split(line)[1:]
    layers = [ROOT / argument for argument in arguments if argument.endswith(".yaml")]
    if any("MedMNIST" in layer.read_text(encoding="utf-8") for layer in layers):
        monkeypatch.setenv("MEDBOLT_DATA", str(request.getfixturevalue("shared_data")))
    (tmp_path / "lightning_configs").symlink_to(ROOT / "lightning_configs")
    monkeypatch.chdir(tmp_path)
    short = ["fast_dev_run=1", "accelerator=cpu", "devices=1", "enable_progress_bar=false"]
    options = [*(f"--trainer.{option}" for option in short), "--data.init_args.batch_size=4"]
    assert main([*arguments, *options]) == 0


def test_the_layer_that_the_readme_shows_is_the_layer():
    shown = [block for block in code(ROOT / "README.md", "yaml") if block.startswith("# lightning_configs/")]
    assert shown
    for block in shown:
        layer = ROOT / block.splitlines()[0].removeprefix("# ")
        assert yaml.safe_load(block) == yaml.safe_load(layer.read_text(encoding="utf-8"))


@pytest.mark.parametrize("action", ["check", "prepare"])
def test_the_options_of_the_data_commands_are_documented(action: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit):
        main(["data", action, "--help"])
    options = set(re.findall(r"^  (--[a-z-]+)", capsys.readouterr().out, re.MULTILINE))
    sections = (ROOT / "docs/api/cli.md").read_text(encoding="utf-8").split("\n## ")
    (section,) = [section for section in sections if section.startswith(f"`medbolt data {action}")]
    assert set(re.findall(r"^\| `(--[a-z-]+)`", section, re.MULTILINE)) == options


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_python_runs_as_it_stands(page: Path, working_folder: Path):
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(code(page, "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)

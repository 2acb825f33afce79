"""What README and guides say: the set-up commands, the packages there are, and Python that runs as it stands."""

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
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


@pytest.mark.slow
@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_python_runs_as_it_stands(page: Path, working_folder: Path):
    names: dict[str, object] = {"__name__": "__main__"}
    for number, block in enumerate(code(page, "python")):
        exec(compile(block, f"{page.name}, block {number}", "exec"), names)

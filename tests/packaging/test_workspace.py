"""tools/workspace.py: which packages a change touches, which package a tag releases."""

import subprocess
from pathlib import Path

import pytest
import workspace
from workspace import Package, affected, changed_files, released


def package(name: str, *requirements: str) -> Package:
    return Package(Path("packages", name), f"medbolt-{name}", "0.3.0", requirements)


CHAIN = {
    "core": package("core", "torch>=2.6"),
    "noisy": package("noisy", "medbolt-core>=0.3,<0.4"),
    "seg": package("seg", "medbolt_core[extra]>=0.3"),
    "bench": package("bench", "ray", "medbolt-noisy"),
}


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (["packages/core/src/medbolt/core/batch.py"], ["bench", "core", "noisy", "seg"]),
        (["packages/noisy/src/medbolt/noisy/elr.py"], ["bench", "noisy"]),
        (["packages/seg/tests/test_dice.py", "docs/index.md"], ["seg"]),
        (["packages/gone/src/medbolt/gone/x.py"], []),
        (["docs/conf.py", "README.md", "CITATION.cff"], []),
        (["tests/test_configs.py"], ["bench", "core", "noisy", "seg"]),
        (["constraints.txt"], ["bench", "core", "noisy", "seg"]),
        ([], []),
    ],
)
def test_affected_are_the_changed_packages_and_their_dependents(files: list[str], expected: list[str]):
    assert affected(files, CHAIN) == expected


def test_packages_are_read_from_their_pyproject_files(tmp_path: Path):
    folder = tmp_path / "packages/noisy"
    folder.mkdir(parents=True)
    (folder / "pyproject.toml").write_text(
        '[project]\nname = "medbolt-noisy"\nversion = "1.2"\ndependencies = ["medbolt-core>=0.3"]\n'
        '[project.optional-dependencies]\nplots = ["seaborn"]\n'
    )
    assert workspace.packages(tmp_path) == {
        "noisy": Package(folder, "medbolt-noisy", "1.2", ("medbolt-core>=0.3", "seaborn"))
    }


def test_changed_files_are_those_since_the_branch_point(tmp_path: Path):
    def git(*arguments: str) -> None:
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        subprocess.run(["git", *identity, *arguments], cwd=tmp_path, check=True, capture_output=True)

    def commit(file: str) -> None:
        (tmp_path / file).write_text(file)
        git("add", file)
        git("commit", "-m", file)

    git("init", "-b", "main")
    commit("old")
    git("checkout", "-b", "branch")
    commit("mine")
    git("checkout", "main")
    commit("theirs")
    git("checkout", "branch")
    assert changed_files("main", tmp_path) == ["mine"]
    assert changed_files("0" * 40, tmp_path) is None


@pytest.fixture
def releasable(tmp_path: Path) -> dict[str, Package]:
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.3.0 (2026-01-01)\n\n## 0.2.0\n")
    return {"noisy": Package(tmp_path, "medbolt-noisy", "0.3.0", ())}


def test_a_tag_releases_the_package_it_names(releasable: dict[str, Package]):
    assert released("medbolt-noisy/v0.3.0", releasable) is releasable["noisy"]


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("medbolt-nosiy/v0.3.0", "names none of medbolt-noisy"),
        ("v0.3.0", "names none of medbolt-noisy"),
        ("medbolt-noisy/v0.2.0", "does not match version 0.3.0"),
        ("medbolt-noisy/v", "does not match version 0.3.0"),
    ],
)
def test_a_tag_that_releases_nothing_says_why(releasable: dict[str, Package], tag: str, reason: str):
    with pytest.raises(ValueError, match=reason):
        released(tag, releasable)


def test_a_release_needs_its_changelog_section(releasable: dict[str, Package]):
    changelog = releasable["noisy"].folder / "CHANGELOG.md"
    changelog.write_text("## Unreleased\n\n## 0.3.0.dev1\n")
    with pytest.raises(ValueError, match=r"has no section '## 0\.3\.0'"):
        released("medbolt-noisy/v0.3.0", releasable)


def test_every_package_of_this_workspace_is_found():
    assert workspace.packages().keys() == {
        path.parent.name for path in workspace.ROOT.glob("packages/*/pyproject.toml")
    }
    assert workspace.packages()["core"].distribution == "medbolt-core"

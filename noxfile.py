"""Every check of the workspace: ``nox -l`` lists them, ``nox -s lint types`` runs two, ``--`` passes arguments on.

Sessions install the versions CI pins in ``constraints.txt``, except ``lowest``, which tries the declared floors.
"""

import os
import re
import shutil
import tempfile
import zipfile
from pathlib import Path

import nox

nox.needs_version = ">=2025.5.1"
nox.options.default_venv_backend = "uv"
nox.options.sessions = ["lint", "types", "tests"]

ROOT = Path(__file__).parent
PACKAGES = sorted(path.parent.name for path in ROOT.glob("packages/*/pyproject.toml"))
PINNED = ("--constraints", str(ROOT / "constraints.txt"))


def distribution(package: str) -> str:
    """Return the name under which a package is published."""
    return nox.project.load_toml(ROOT / "packages" / package / "pyproject.toml")["project"]["name"]


def install_workspace(session: nox.Session, *groups: str) -> None:
    """Install every package from its source tree, with the tools of dependency groups."""
    sources = [argument for name in PACKAGES for argument in ("-e", f"packages/{name}")]
    session.install(*PINNED, *sources, *(argument for group in groups for argument in ("--group", group)))


def build_wheels(session: nox.Session, folder: Path) -> dict[str, Path]:
    """Build the wheel of every package and return their paths by distribution name."""
    session.run("uv", "build", "--all-packages", "--wheel", "--no-sources", "--out-dir", str(folder), external=True)
    return {wheel.name.split("-")[0].replace("_", "-"): wheel for wheel in sorted(folder.glob("*.whl"))}


@nox.session
def tests(session: nox.Session) -> None:
    """The whole suite."""
    install_workspace(session, "test", "foreign")
    session.run("pytest", *session.posargs)


def test_alone(session: nox.Session, package: str) -> None:
    """Test a package as its users get it: the wheel and its declared dependencies, out of reach of the source tree."""
    with tempfile.TemporaryDirectory() as folder:
        wheels = build_wheels(session, Path(folder, "wheels"))
        # As constraints, the siblings' wheels are installed where the package asks for them, and its bounds count.
        siblings = Path(folder, "siblings.txt")
        siblings.write_text("".join(f"{name} @ {wheel.as_uri()}\n" for name, wheel in wheels.items()), encoding="utf-8")
        session.install(*PINNED, "--constraints", str(siblings), str(wheels[distribution(package)]), "--group", "test")
        shutil.copytree(ROOT / "packages" / package / "tests", Path(folder, "tests"))
        shutil.copytree(ROOT / "tests/support", Path(folder, "tests/support"))
        shutil.copy(ROOT / "conftest.py", folder)
        data = {"MEDBOLT_DATA": os.environ.get("MEDBOLT_DATA", str(ROOT.parent / "shared/data"))}
        with session.chdir(folder):
            options = ["-c", str(ROOT / "pyproject.toml"), "--rootdir", "."]
            session.run("pytest", *options, *(session.posargs or ["tests"]), env=data)


def add_isolated_session(package: str) -> None:
    """Add the session ``tests-<package>``."""

    @nox.session(name=f"tests-{package}")
    def isolated(session: nox.Session) -> None:
        """This package's tests against its wheel in a fresh environment."""
        test_alone(session, package)


for _package in PACKAGES:
    add_isolated_session(_package)


@nox.session(python="3.11")
@nox.parametrize("package", PACKAGES, ids=PACKAGES)
def lowest(session: nox.Session, package: str) -> None:
    """One package on the oldest versions its dependencies admit: the floors are real."""
    session.install("--resolution", "lowest-direct", "-e", f"packages/{package}")
    session.install("--group", "test")
    session.run("pytest", *(session.posargs or [f"packages/{package}"]))


@nox.session
def ddp(session: nox.Session) -> None:
    """The tests that start two processes."""
    install_workspace(session, "test", "foreign")
    session.run("pytest", "-m", "ddp", *session.posargs)


@nox.session
def configs(session: nox.Session) -> None:
    """Every YAML file in lightning_configs through the real command line."""
    install_workspace(session, "test")
    session.run("pytest", "tests/test_configs.py", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Ruff, its formatter included."""
    session.install(*PINNED, "--group", "lint")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Pyright over the sources of every package."""
    install_workspace(session, "types")
    session.run("pyright", "--pythonpath", str(Path(session.bin, "python")), *session.posargs)


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, its gallery executed; warnings are errors."""
    install_workspace(session, "docs")
    session.run("sphinx-build", "-W", "--keep-going", "docs", "docs/_build/html", *session.posargs)


def run_benchmarks(session: nox.Session, *arguments: str) -> None:
    """Run the benchmarks, which the suite skips, and show their table."""
    options = "addopts=--import-mode=importlib --strict-markers"
    # memory that is given back to the system after each step comes back page by page, which takes as long as a loss
    steady = {"MALLOC_MMAP_THRESHOLD_": str(2**25), "MALLOC_TRIM_THRESHOLD_": str(2**30)}
    session.run("pytest", "-o", options, "--capture=no", "tests/benchmarks", *arguments, env=steady)


@nox.session
def benchmarks(session: nox.Session) -> None:
    """The figures this project promises, measured in one run; prints their table."""
    install_workspace(session, "test")
    run_benchmarks(session, *session.posargs)


@nox.session
def gpu(session: nox.Session) -> None:
    """The tests that need a CUDA device, then the benchmarks."""
    install_workspace(session, "test")
    session.run("pytest", "-m", "gpu", *session.posargs)
    run_benchmarks(session)


def check_wheel(session: nox.Session, wheel: Path) -> None:
    """Fail unless a wheel holds its own package below the shared namespace, typed, and nothing else."""
    stem = wheel.name.split("-")[0]
    own = f"medbolt/{stem.removeprefix('medbolt_')}/"
    names = [name for name in zipfile.ZipFile(wheel).namelist() if not re.match(rf"{stem}-[^/]+\.dist-info/", name)]
    if strangers := [name for name in names if not name.startswith(own)]:
        session.error(f"{wheel.name} holds files outside {own}: {strangers}")
    if names and f"{own}py.typed" not in names:
        session.error(f"{wheel.name} lacks {own}py.typed")


@nox.session
def build(session: nox.Session) -> None:
    """Wheels and sdists of every package, or of those named after ``--``, into dist/, checked."""
    dist = ROOT / "dist"
    shutil.rmtree(dist, ignore_errors=True)
    for package in session.posargs or PACKAGES:
        session.run("uv", "build", "--no-sources", "--out-dir", str(dist), f"packages/{package}", external=True)
    session.install(*PINNED, "--group", "build")
    session.run("twine", "check", "--strict", *map(str, sorted([*dist.glob("*.whl"), *dist.glob("*.tar.gz")])))
    for wheel in dist.glob("*.whl"):
        check_wheel(session, wheel)


@nox.session(venv_backend="none")
def pins(session: nox.Session) -> None:
    """Add what is missing to constraints.txt; ``-- --upgrade`` brings all of it to the newest versions."""
    projects = [f"packages/{name}/pyproject.toml" for name in PACKAGES]
    siblings = [argument for name in PACKAGES for argument in ("--no-emit-package", distribution(name))]
    groups = ["--group", "dev", "--group", "foreign", "--group", "build"]
    header = ["--custom-compile-command", "nox -s pins"]
    options = ["--python-version", "3.11", "--no-annotate", "--output-file", "constraints.txt"]
    session.run(
        "uv", "pip", "compile", *projects, *groups, *siblings, *header, *options, *session.posargs, external=True
    )

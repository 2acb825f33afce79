"""The shape every package shares: files, namespace, who may import whom, bounds on siblings."""

import ast
import tomllib
from collections.abc import Iterator

import pytest
from packaging.requirements import Requirement
from workspace import ROOT, Package, distribution, packages

PACKAGES = packages()
CODE = [package for package in PACKAGES.values() if (package.folder / "src").exists()]
"""Every package but the meta distribution, which has no code."""

each_package = pytest.mark.parametrize("package", PACKAGES.values(), ids=PACKAGES)
each_code_package = pytest.mark.parametrize("package", CODE, ids=lambda package: package.name)


def imported_packages(source: str) -> Iterator[str]:
    """Yield the package name of each absolute import of ``medbolt.<package>``, wherever in the file it stands."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                modules = [name.name for name in names]
            case ast.ImportFrom(module="medbolt", level=0, names=names):
                modules = [f"medbolt.{name.name}" for name in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules = [module]
            case _:
                continue
        yield from (parts[1] for module in modules if (parts := module.split("."))[0] == "medbolt" and parts[1:])


@each_package
@pytest.mark.parametrize("file", ["pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE"])
def test_every_package_has(package: Package, file: str):
    assert (package.folder / file).is_file()


@each_package
def test_the_licence_is_the_workspace_s(package: Package):
    assert (package.folder / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


@each_package
def test_the_distribution_is_named_after_the_folder(package: Package):
    assert package.distribution == ("medbolt" if package.name == "medbolt" else f"medbolt-{package.name}")


@each_package
def test_a_root_install_brings_the_package(package: Package):
    root = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert package.distribution in root["project"]["dependencies"]
    assert package.distribution in root["tool"]["uv"]["sources"]


def test_the_namespace_has_no_init_file():
    strays = [str(path.relative_to(ROOT)) for path in ROOT.glob("packages/*/src/medbolt/__init__.py*")]
    assert not strays, f"{strays} would hide the sibling packages: medbolt is a PEP 420 namespace"


@each_code_package
def test_the_namespace_holds_the_package_alone(package: Package):
    holds = {path.name for path in (package.folder / "src/medbolt").iterdir() if path.name != "__pycache__"}
    assert holds == {package.name}


@each_code_package
@pytest.mark.parametrize("file", ["__init__.py", "__init__.pyi", "py.typed"])
def test_every_import_package_has(package: Package, file: str):
    assert (package.folder / "src/medbolt" / package.name / file).is_file()


@each_code_package
def test_core_imports_no_sibling_and_siblings_only_core(package: Package):
    trespasses = {
        (path.relative_to(ROOT).as_posix(), other)
        for path in package.folder.rglob("src/**/*.py*")
        if path.suffix in {".py", ".pyi"}
        for other in imported_packages(path.read_text(encoding="utf-8"))
        if other not in {package.name, "core"}
    }
    assert not trespasses, f"what two packages need moves down to core: {sorted(trespasses)}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import medbolt.noisy.elr as e, os", ["noisy"]),
        ("from medbolt.seg import dice", ["seg"]),
        ("from medbolt import seg, core", ["seg", "core"]),
        ("def f():\n    import medbolt.vlm", ["vlm"]),
        ("from . import stats\nfrom .data import x\nimport medbolt", []),
    ],
)
def test_imports_are_seen_in_every_form(source: str, expected: list[str]):
    assert list(imported_packages(source)) == expected


@each_package
def test_bounds_on_siblings_admit_their_current_versions(package: Package):
    versions = {other.distribution: other.version for other in PACKAGES.values()}
    for text in package.requirements:
        if (name := distribution(text)) in versions:
            requirement = Requirement(text)
            assert requirement.specifier.contains(versions[name], prereleases=True), (
                f"{text}: {name} is {versions[name]}"
            )
            assert "<" in str(requirement.specifier), f"{text}: a sibling needs an upper bound, such as <0.2"

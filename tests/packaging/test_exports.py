"""What a package exports: declared in its stub, importable, documented, tested, and cheap until it is used."""

import importlib
import inspect
import re
import subprocess
import sys
from types import ModuleType

import pytest
from workspace import ROOT, exports, packages

PACKAGES = {f"medbolt.{name}": package for name, package in packages().items() if exports(package)}
EXPORTS = [(module, name, origin) for module in PACKAGES for name, origin in exports(PACKAGES[module]).items()]

each_export = pytest.mark.parametrize(("module", "name", "origin"), EXPORTS, ids=str)
each_package = pytest.mark.parametrize("module", PACKAGES)


@each_export
def test_imports(module: str, name: str, origin: str):
    exported = getattr(importlib.import_module(module), name)
    if isinstance(exported, ModuleType):
        assert exported.__name__ == f"{module}.{origin}"
    else:
        assert getattr(importlib.import_module(f"{module}.{origin}"), name) is exported


@each_export
def test_has_a_docstring_with_an_example(module: str, name: str, origin: str):
    exported = getattr(importlib.import_module(module), name)
    text = inspect.getdoc(exported)
    assert text, f"{module}.{name} has no docstring"
    if not isinstance(exported, ModuleType):
        assert re.search(r"^Examples?:$", text, flags=re.MULTILINE), f"the docstring of {module}.{name} has no Example"


@each_export
def test_has_a_test_named_after_its_file(module: str, name: str, origin: str):
    tests = PACKAGES[module].folder / "tests"
    stem = origin.split(".")[-1]
    assert any(tests.rglob(f"test_{stem}.py")) or (tests / stem).is_dir(), f"{module}.{name} has no test_{stem}.py"


@each_package
def test_every_export_is_on_one_page_of_the_api(module: str):
    pages = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs/api").glob("*.md"))
    assert re.search(rf"^\.\. exports:: {module}$", pages, flags=re.MULTILINE), f"no page of docs/api shows {module}"
    directives = re.findall(rf"^\.\. exports:: {module}\n   :modules: (.+)$", pages, flags=re.MULTILINE)
    shown = sorted(name for names in directives for name in names.split())
    if shown:  # else one page shows the whole package
        assert len(shown) == len(set(shown))
        assert {origin.split(".")[0] for origin in exports(PACKAGES[module]).values()} <= set(shown)


@each_package
def test_the_stub_declares_what_the_package_offers(module: str):
    assert sorted(importlib.import_module(module).__all__) == sorted(exports(PACKAGES[module]))


@each_package
def test_importing_the_package_alone_is_cheap(module: str):
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "lightning", "torchvision", "timm", "pandas", "scipy", "sklearn", "matplotlib"} & set(loaded)

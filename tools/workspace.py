"""What CI, tests and documentation ask about the workspace: what packages export, what a change or a tag touches.

    python tools/workspace.py changed origin/main          # ["core", "noisy"], for a job matrix
    python tools/workspace.py release medbolt-core/v0.1.0  # core, or one sentence why this tag releases nothing

Needs Python alone, so a job can ask before anything is installed.
"""

import ast
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Package:
    """One distribution of the workspace, as its ``pyproject.toml`` declares it."""

    folder: Path
    distribution: str
    version: str
    requirements: tuple[str, ...]
    """Requirement strings, those of the extras included."""

    @property
    def name(self) -> str:
        """The folder's name, which is the import name below ``medbolt``."""
        return self.folder.name

    def requires(self, other: "Package") -> bool:
        """Tell whether this package names the other among its requirements."""
        return other.distribution in (distribution(requirement) for requirement in self.requirements)


def distribution(requirement: str) -> str:
    """Return the normalised distribution name a requirement string starts with.

    Example:
        >>> distribution("Medbolt_core[images]>=0.1,<0.2")
        'medbolt-core'
    """
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", name[0]).lower() if name else ""


def packages(root: Path = ROOT) -> dict[str, Package]:
    """Return the packages of the workspace by name."""
    found = {}
    for path in sorted(root.glob("packages/*/pyproject.toml")):
        project = tomllib.loads(path.read_text(encoding="utf-8"))["project"]
        extras = project.get("optional-dependencies", {}).values()
        requirements = [*project.get("dependencies", []), *(line for extra in extras for line in extra)]
        found[path.parent.name] = Package(path.parent, project["name"], project["version"], tuple(requirements))
    return found


def exports(package: Package) -> dict[str, str]:
    """Return the public names that a package's stub declares, each with the module below the package it comes from."""
    stub = package.folder / "src/medbolt" / package.name / "__init__.pyi"
    body = ast.parse(stub.read_text(encoding="utf-8")).body if stub.exists() else []
    imports = [statement for statement in body if isinstance(statement, ast.ImportFrom)]
    return {alias.asname or alias.name: node.module or alias.name for node in imports for alias in node.names}


def affected(files: Iterable[str], workspace: dict[str, Package]) -> list[str]:
    """Return the packages whose tests may change their outcome when these files change.

    A file of a package touches it and everything that depends on it; text and documentation touch none; any other file
    (workflows, shared configuration, cross-package tests) touches all.
    """
    names: set[str] = set()
    for file in map(Path, files):
        if len(file.parts) > 2 and file.parts[0] == "packages":
            names.add(file.parts[1])
        elif file.parts[0] != "docs" and file.suffix not in {".md", ".cff"}:
            return sorted(workspace)
    names &= workspace.keys()  # a deleted package has no tests left
    while dependents := {
        package.name
        for package in workspace.values()
        if package.name not in names and any(package.requires(workspace[name]) for name in names)
    }:
        names |= dependents
    return sorted(names)


def changed_files(base: str, root: Path = ROOT) -> list[str] | None:
    """Return the files changed since the branch left ``base``, or None if this clone does not know ``base``."""
    diff = ["git", "diff", "--name-only", "--no-renames", f"{base}...HEAD"]
    result = subprocess.run(diff, cwd=root, capture_output=True, text=True, check=False)
    return result.stdout.splitlines() if result.returncode == 0 else None


def released(tag: str, workspace: dict[str, Package]) -> Package:
    """Return the package that a tag such as ``medbolt-core/v0.1.0`` releases.

    Raises:
        ValueError: if the tag names no package, another version than its pyproject, or one its changelog lacks.
    """
    name, _, version = tag.partition("/v")
    package = next((package for package in workspace.values() if package.distribution == name), None)
    if package is None:
        known = ", ".join(package.distribution for package in workspace.values())
        raise ValueError(f"tag '{tag}' names none of {known}: write <distribution>/v<version>")
    here = f"packages/{package.name}"
    if version != package.version:
        raise ValueError(f"tag '{tag}' does not match version {package.version} in {here}/pyproject.toml")
    changelog = (package.folder / "CHANGELOG.md").read_text(encoding="utf-8")
    if not re.search(rf"^## {re.escape(version)}(\s|$)", changelog, flags=re.MULTILINE):
        raise ValueError(f"{here}/CHANGELOG.md has no section '## {version}': give 'Unreleased' that name")
    return package


def main(arguments: list[str]) -> str:
    """Answer one of the two questions in the module's docstring."""
    workspace = packages()
    match arguments:
        case ["changed", base]:
            files = changed_files(base)
            return json.dumps(sorted(workspace) if files is None else affected(files, workspace))
        case ["release", tag]:
            return released(tag, workspace).name
        case _:
            raise ValueError("usage: workspace.py changed <base commit> | release <tag>")


if __name__ == "__main__":
    try:
        print(main(sys.argv[1:]))
    except ValueError as error:
        sys.exit(str(error))

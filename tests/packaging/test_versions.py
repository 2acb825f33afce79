"""Tools that are named in two places are named at the same version."""

import re

import yaml
from workspace import ROOT


def test_the_commit_hook_runs_the_ruff_that_ci_runs():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    hooked = next(repo["rev"] for repo in hooks if repo["repo"].endswith("/ruff-pre-commit"))
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert pinned
    assert hooked == f"v{pinned[1]}"


def test_constraints_hold_versions_alone():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    strange = [line for line in lines if not re.fullmatch(r"#.*|[a-z0-9.-]+==[0-9A-Za-z.+!]+", line)]
    assert not strange

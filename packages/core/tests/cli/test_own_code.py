import subprocess
import sys
from pathlib import Path

import pytest

from medbolt.core.cli.own_code import find_own_code

MEDBOLT = Path(sys.executable).with_name("medbolt")
"""The console script, on whose path the working directory is not."""


def test_the_working_directory_is_searched_once(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    find_own_code()
    find_own_code()
    assert sys.path.count(str(tmp_path)) == 1


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["data", "prepare", "--output", "store", "--size", "8"], ["fit", "-c"]])
def test_the_console_script_finds_the_user_s_own_classes(config, tmp_path, arguments):
    done = subprocess.run([MEDBOLT, *arguments, config()], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr

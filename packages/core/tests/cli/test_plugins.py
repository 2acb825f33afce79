from importlib.metadata import EntryPoint

import pytest

from medbolt.core.cli.main import main
from medbolt.core.cli.plugins import contributions


@pytest.mark.parametrize("arguments", [[], ["list"]], ids=["help", "list"])
def test_a_broken_package_is_told_in_one_sentence_and_the_others_are_there(broken_package, capsys, arguments):
    assert main(arguments) == 0
    captured = capsys.readouterr()
    reason = "ImportError: libgone.so is not there"
    warning = f"medbolt: warning: {broken_package} cannot be loaded ({reason}); install it anew or remove it."
    assert captured.err.splitlines() == [warning]
    assert "  data  " in captured.out or "medbolt.core 0." in captured.out


def test_a_package_with_a_broken_export_is_told_too(broken_package, capsys, tmp_path):
    (tmp_path / "site/broken.py").write_text("__all__ = ['Gone']")
    assert main(["list"]) == 0
    assert "broken cannot be loaded (AttributeError: " in capsys.readouterr().err


def test_they_come_by_name():
    names = [point.name for point, _ in contributions("medbolt.commands", EntryPoint.load)]
    assert {"data", "list"} <= set(names)
    assert names == sorted(names)

from pathlib import Path

import pytest

from medbolt.core.data.locate import locate
from medbolt.core.errors import UserError


@pytest.fixture
def places(tmp_path, monkeypatch):
    for name in ("work", "data"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setenv("MEDBOLT_DATA", str(tmp_path / "data"))
    return tmp_path


def test_the_working_folder_comes_first_then_the_variable(places):
    found = []
    for folder in ("data", "work"):
        (places / folder / "a.csv").touch()
        found.append(locate("a.csv").resolve())
    assert found == [places / folder / "a.csv" for folder in ("data", "work")]


def test_an_absolute_path_is_taken_as_it_is(places):
    (places / "data/a.csv").touch()
    assert locate(places / "data/a.csv") == places / "data/a.csv"
    with pytest.raises(UserError, match=r"^there is no /nowhere/a.csv; correct the path.$"):
        locate("/nowhere/a.csv")


def test_the_home_folder(places, monkeypatch):
    monkeypatch.setenv("HOME", str(places))
    assert locate("~/data") == places / "data"


def test_all_places_are_named(places):
    with pytest.raises(
        UserError, match="there is no sub/a.csv in '[^']*work', '[^']*data'; correct the path or set MEDBOLT_DATA"
    ):
        locate(Path("sub/a.csv"))


def test_without_the_variable_only_the_working_folder_counts(places, monkeypatch):
    monkeypatch.delenv("MEDBOLT_DATA")
    for folder in ("data", "shared/data", "work/data"):
        (places / folder).mkdir(parents=True, exist_ok=True)
        (places / folder / "a.csv").touch()
    with pytest.raises(UserError, match=r"^there is no a.csv in '[^']*work'; correct the path or set MEDBOLT_DATA"):
        locate("a.csv")
    (places / "work/a.csv").touch()
    assert locate("a.csv").resolve() == places / "work/a.csv"

import pytest

from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with pytest.raises(KeyError), atomic_write(path) as temporary:
        raise KeyError(temporary.write_text("half"))
    assert [file.name for file in tmp_path.iterdir()] == ["table.csv"]
    assert path.read_text() == "old"


def test_readers_see_the_old_file_until_the_end(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_a_full_disk_is_a_user_error(tmp_path):
    message = r"cannot write '.*table.csv' \(No space left on device\)"
    with pytest.raises(UserError, match=message), atomic_write(tmp_path / "table.csv"):
        raise OSError(28, "No space left on device")
    assert not list(tmp_path.iterdir())

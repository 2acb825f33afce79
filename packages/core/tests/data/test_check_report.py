import re

import pytest

from medbolt.core.data.check import check_manifest
from medbolt.core.data.check_report import render_text, write_html
from medbolt.core.errors import UserError


@pytest.fixture
def check(table, tmp_path):
    path = table(image=["a.png", "b.png", "c.png"], label=["<b>x</b>", "y", "y"], split=["train", "train", "test"])
    (tmp_path / "c.png").write_bytes((tmp_path / "b.png").read_bytes())
    return check_manifest(path)


def test_text(check):
    lines = render_text(check).splitlines()
    assert lines[0] == "labels.csv: 3 images, 1 error, 5 warnings"
    assert re.fullmatch(r"y +1 +1", lines[4])
    assert "ERROR    1 pair of images in different splits with the same pixels." in lines
    assert "WARNING  the val split is empty." in lines


def test_page(check, tmp_path):
    write_html(check, tmp_path / "new/check.html")
    page = (tmp_path / "new/check.html").read_text(encoding="utf-8")
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page
    assert len(re.findall(r'<img src="data:image/jpeg;base64,[\w+/=]+"', page)) == 2 + 3
    assert 'title="c.png, row 4 of labels.csv"' in page
    assert not re.search(r"""(src|href)=["'](?!data:)""", page)


def test_a_page_that_cannot_be_written(check, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*file/check.html"):
        write_html(check, tmp_path / "file/check.html")

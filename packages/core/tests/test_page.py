import jinja2
import pytest

from medbolt.core.page import page_template


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package with a template."""
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/__init__.py").touch()
    (tmp_path / "pages/a.html.j2").write_text("{% if word %}\n<p>{{ word }}</p>\n{% endif %}\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "pages"


def test_what_is_shown_is_escaped_and_blocks_leave_no_blank_lines(package):
    assert page_template(package, "a.html.j2").render(word="<b>") == "<p>&lt;b&gt;</p>\n"


def test_what_is_missing_is_an_error(package):
    with pytest.raises(jinja2.UndefinedError, match="'word' is undefined"):
        page_template(package, "a.html.j2").render()

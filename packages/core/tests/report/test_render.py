import re
from html.parser import HTMLParser

import pytest

from medbolt.core.errors import UserError
from medbolt.core.predictions import Predictions
from medbolt.core.report import DataCard, render_report
from medbolt.core.report.numbers import Numbers

VOID = {"meta", "img", "br", "link", "input", "hr"}


class Page(HTMLParser):
    """Check that tags are balanced, and collect what the page refers to."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.references: list[str] = []
        self.text = ""
        self.feed(text)
        assert not self.open, f"{self.open} are not closed"

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.add(tag)
        self.references += [value for name, value in attrs if name in ("src", "href", "xlink:href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def render(tmp_path, *tables, **options) -> Page:
    render_report(tables, tmp_path / "report.html", replicates=20, **options)
    return Page((tmp_path / "report.html").read_text(encoding="utf-8"))


@pytest.fixture
def full(make_table):
    domain = [i % 2 for i in range(600)]
    groups = [f"p{i // 3}" for i in range(600)]
    return make_table(domain=domain, domain_names=("old camera", "new camera"), group=groups, seed=3, dataset="toy")


def test_the_page_needs_nothing_but_itself(tmp_path, full):
    page = render(
        tmp_path,
        full,
        curves={"val/loss": {0: 1.0, 1: 0.5}},
        data_card=DataCard("Toy", full.class_names, {"train": [1, 2, 3]}),
        summary={"network": "resnet18"},
        pictures=lambda ids: {ids[0]: "data:image/jpeg;base64,AAAA"},
    )
    assert all(reference.startswith(("#", "data:")) for reference in page.references)
    assert "data:image/jpeg;base64,AAAA" in page.references
    assert not {"script", "link", "iframe", "object"} & page.tags
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert not re.findall(r"url\((?!#)|@import", text)
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


def test_the_page_shows_the_numbers(tmp_path, full):
    page = render(tmp_path, full, curves={"val/loss": {0: 1.0}}, summary={"network": "resnet18"})
    numbers = Numbers(full, 20)
    for interval in numbers.overall().values():
        assert f"{interval.estimate:.3f}" in page.text
        assert f"{interval.low:.3f} – {interval.high:.3f}" in page.text
    for row in numbers.by_class():
        assert f"{row.recall.estimate:.3f}" in page.text
    for word in (
        "old camera",
        "baseline · toy · seed 3",
        "600 samples of 200 groups",
        "resnet18",
        "Confusion",
        "Training",
    ):
        assert word in page.text


def test_the_worst_domain_is_marked(tmp_path, full):
    full.frame.loc[full.frame["domain"] == 0, "prediction"] = 0
    render(tmp_path, full)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    marked = re.findall(r'<tr class="worst"><td class="name">([^<]*)', text)
    assert marked == ["old camera"]


def test_names_cannot_become_markup(tmp_path, make_table):
    hostile = "<script>alert('x')</script>"
    table = make_table()
    frame = table.frame.assign(id=[f"{hostile}{i}" for i in range(600)], method=hostile)
    page = render(
        tmp_path,
        Predictions(frame, (hostile, "b", "c")),
        title=hostile,
        summary={hostile: hostile},
        data_card=DataCard(hostile, (hostile, "b", "c"), {"train": [1, 2, 3]}),
    )
    assert "script" not in page.tags
    assert hostile in page.text


def test_without_predictions_there_are_curves_and_data(tmp_path):
    page = render(tmp_path, curves={"val/loss": {0: 1.0}}, data_card=DataCard("Toy", ("a",), {"train": [5]}))
    assert "There are no labelled predictions yet" in page.text
    assert "Training" in page.text
    assert "Toy" in page.text


def test_samples_without_a_label_are_counted_and_left_out(tmp_path, make_table):
    table = make_table()
    frame = table.frame.copy()
    frame.loc[:99, "target"] = None
    page = render(tmp_path, Predictions(frame, table.class_names))
    assert "500 samples" in page.text
    assert "100 samples without a label are left out" in page.text


def test_several_runs_are_compared_in_one_table(tmp_path, make_table):
    page = render(tmp_path, make_table(method="cross entropy"), make_table(method="elr", skill=3.0))
    assert "2 runs" in page.text
    assert page.text.count("cross entropy") == 2
    assert page.text.count("elr") == 2


def test_labels_make_a_page_without_confusion_matrix(tmp_path, multilabel):
    page = render(tmp_path, multilabel)
    assert "Confusion" not in page.text
    assert "Reliability" in page.text


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose a writable folder"):
        render_report([], tmp_path / "file" / "report.html")

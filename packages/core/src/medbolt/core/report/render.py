"""From prediction tables to one self-contained HTML page."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from markupsafe import Markup
from tqdm import tqdm

from medbolt.core import stats
from medbolt.core.files import atomic_write
from medbolt.core.page import page_template
from medbolt.core.predictions.table import Predictions
from medbolt.core.report.card import DataCard
from medbolt.core.report.figures import Curves, confusion_figure, curves_figure, reliability_figure
from medbolt.core.report.findings import Finding, findings
from medbolt.core.report.numbers import ClassRow, DomainRow, Numbers

Pictures = Callable[[Sequence[str]], Mapping[str, str]]
"""Gives a ``data:`` address by id for the ids it is asked for."""
LOWER_IS_BETTER = frozenset({"Calibration error", "Brier score"})


@dataclass(frozen=True)
class Example:
    """A sample worth looking at."""

    id: str
    truth: str
    predicted: str
    confidence: float
    image: str | None


@dataclass(frozen=True)
class Section:
    """What the page says of one table."""

    name: str
    samples: int
    unlabelled: int
    groups: int | None
    overall: dict[str, stats.Interval | None]
    classes: list[ClassRow]
    domains: list[DomainRow]
    confusion: Markup | None
    reliability: Markup
    examples: list[Example]
    findings: list[Finding]


def render_report(
    tables: Sequence[Predictions],
    path: Path | str,
    title: str = "Test report",
    curves: Curves | None = None,
    data_card: DataCard | None = None,
    summary: Mapping[str, str] | None = None,
    pictures: Pictures | None = None,
    replicates: int = 2000,
) -> None:
    """Write one HTML page that needs nothing but itself, all or nothing.

    Args:
        tables: Prediction tables, one a run; samples without a target are left out. May be empty: then the page has
            the training curves and the data card.
        path: The page to write or to replace.
        title: Heading.
        curves: Value of each metric by epoch.
        data_card: What the data are.
        summary: What is to be known about the run, by name.
        pictures: Gives ``data:`` addresses of pictures, by id, for the ids it is asked for; those it lacks are not
            shown.
        replicates: Bootstrap replicates of each interval.

    Raises:
        UserError: if the page cannot be written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "report.html"
        >>> render_report([], path, curves={"val/loss": {0: 1.0, 1: 0.5}})
        >>> "<svg" in path.read_text(encoding="utf-8")
        True
    """
    labelled = [(table, table.labelled()) for table in tables]
    progress = tqdm([pair for pair in labelled if len(pair[1])], desc="report", disable=len(labelled) < 2)
    sections = [_section(table, part, data_card, pictures, replicates) for table, part in progress]
    page = page_template("medbolt.core.report", "template.html.j2").render(
        title=title,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("medbolt-core"),
        sections=sections,
        metrics=list(dict.fromkeys(name for section in sections for name in section.overall)),
        lower_is_better=LOWER_IS_BETTER,
        has_ends=_has_ends,
        curves=curves_figure(curves or {}),
        card=data_card,
        summary=summary or {},
        replicates=replicates,
    )
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def _section(
    table: Predictions, labelled: Predictions, card: DataCard | None, pictures: Pictures | None, replicates: int
) -> Section:
    numbers = Numbers(labelled, replicates)
    target, names = labelled.target, tuple(labelled.class_names)
    return Section(
        name=_name(table),
        samples=len(labelled),
        unlabelled=len(table) - len(labelled),
        groups=None if numbers.groups is None else len(set(numbers.groups)),
        overall=numbers.overall(),
        classes=numbers.by_class(),
        domains=numbers.by_domain(),
        confusion=None
        if labelled.multilabel
        else confusion_figure(stats.confusion_matrix(target, labelled.prediction, len(names)), names),
        reliability=reliability_figure(stats.reliability(target, labelled.probability)),
        examples=_examples(numbers, pictures),
        findings=findings(numbers, card),
    )


def _examples(numbers: Numbers, pictures: Pictures | None) -> list[Example]:
    table, rows = numbers.table, numbers.confident_errors()
    ids = [str(name) for name in table.frame["id"].iloc[rows]]
    images = pictures(ids) if pictures is not None and ids else {}
    confidence = table.probability[rows].max(axis=1, initial=0).tolist()
    return [
        Example(name, str(table.class_names[true]), str(table.class_names[predicted]), sure, images.get(name))
        for name, true, predicted, sure in zip(
            ids, table.target[rows].tolist(), table.prediction[rows].tolist(), confidence, strict=True
        )
    ]


def _name(table: Predictions) -> str:
    """Say which run a table is, from the columns that are the same in all rows."""
    parts = []
    for column in ("method", "dataset", "seed"):
        values = table.frame[column].dropna().unique()
        if len(values) == 1 and values[0] != "":
            parts.append(f"seed {values[0]}" if column == "seed" else str(values[0]))
    return " · ".join(parts) or str(table.run.get("module", "predictions"))


def _has_ends(interval: stats.Interval) -> bool:
    """Whether an interval tells anything: one without width means that no replicate differed, not certainty."""
    return math.isfinite(interval.low) and interval.low < interval.high

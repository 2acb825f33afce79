"""The figures of a report, as inline SVG."""

import io
import math
from collections.abc import Mapping
from typing import Any

import matplotlib as mpl
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from medbolt.core.stats import Reliability

Curves = Mapping[str, Mapping[int, float]]
"""Value of each metric by epoch."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # the page's own font, selectable
    "svg.hashsalt": "medbolt",  # the same figure gives the same file
    "text.parse_math": False,  # class names may hold a dollar sign
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa5b1",
    "axes.labelcolor": "#3e4c59",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "xtick.color": "#616e7c",
    "ytick.color": "#616e7c",
    "legend.frameon": False,
}
_COLORS = {"train": "#9aa5b1", "val": "#2563a6", "test": "#b45309"}
_MOST_PANELS = 9
_MOST_ANNOTATED = 16
_FEW_IN_A_BIN = 10
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def curves_figure(curves: Curves) -> Markup | None:
    """Draw a panel a metric, training and validation together; None without a curve.

    Names are split at the first slash: ``val/loss`` is the metric ``loss`` of ``val``. Step-wise values and metrics of
    single classes or domains (a second slash) are left out.

    Example:
        >>> curves_figure({"train/loss": {0: 1.0, 1: 0.5}, "val/loss": {0: 1.1, 1: 0.7}})[:4]
        Markup('<svg')
    """
    panels: dict[str, dict[str, Mapping[int, float]]] = {}
    for name, values in curves.items():
        split, _, metric = name.removesuffix("_epoch").partition("/")
        if "/" not in metric and not name.endswith("_step") and values:
            panels.setdefault(metric or split, {})[split if metric else ""] = values
    if not panels:
        return None
    chosen = sorted(panels, key=lambda metric: metric != "loss")[:_MOST_PANELS]
    columns = min(3, len(chosen))
    rows = math.ceil(len(chosen) / columns)
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(3.3 * columns, 2.3 * rows), layout="constrained")
        for place, metric in enumerate(chosen, start=1):
            axes = figure.add_subplot(rows, columns, place)
            for split, values in panels[metric].items():
                epochs = sorted(values)
                marker = "o" if len(epochs) < 12 else None
                color = _COLORS.get(split, "#2563a6")
                axes.plot(epochs, [values[e] for e in epochs], color=color, marker=marker, markersize=3, label=split)
            axes.set_title(metric.replace("_", " "))
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
            if any(panels[metric]):
                axes.legend()
            if place > len(chosen) - columns:
                axes.set_xlabel("epoch")
        return _svg(figure)


def confusion_figure(counts: NDArray[np.int64], names: tuple[str, ...]) -> Markup:
    """Draw a confusion matrix: counts as text, the share of each true class as colour.

    Example:
        >>> confusion_figure(np.array([[3, 1], [0, 4]]), ("healthy", "ill"))[:4]
        Markup('<svg')
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    labels = [name if len(name) <= 22 else f"{name[:21]}…" for name in names]
    size = min(9.0, 2.2 + 0.4 * len(names))
    with mpl.rc_context({**_STYLE, "axes.grid": False}):
        figure = Figure(figsize=(size + 0.6, size), layout="constrained")
        axes = figure.add_subplot()
        image = axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
        axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(len(names)), labels)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.spines[:].set_visible(False)
        axes.tick_params(length=0)
        if len(names) <= _MOST_ANNOTATED:
            for (row, column), count in np.ndenumerate(counts):
                color = "white" if share[row, column] > 0.6 else "#1f2933" if count else "#cbd2d9"
                axes.text(column, row, str(count), ha="center", va="center", color=color)
        bar = figure.colorbar(image, ax=axes, shrink=0.7, label="share of the true class")
        bar.outline.set_visible(False)  # pyright: ignore[reportCallIssue]
        return _svg(figure)


def reliability_figure(bins: Reliability) -> Markup:
    """Draw a reliability diagram over the number of samples in each bin; bins with few samples are pale.

    Example:
        >>> from medbolt.core.stats import reliability
        >>> reliability_figure(reliability([0, 1], [[0.9, 0.1], [0.8, 0.2]]))[:4]
        Markup('<svg')
    """
    center, width = (bins.edges[:-1] + bins.edges[1:]) / 2, np.diff(bins.edges) * 0.92
    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=(4.2, 4.4), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
        accuracy, gap = np.nan_to_num(bins.accuracy), np.nan_to_num(bins.confidence - bins.accuracy)
        colors = ["#2563a6" if count >= _FEW_IN_A_BIN else "#a8c1db" for count in bins.count]
        top.bar(center, accuracy, width, color=colors)
        top.bar(center, gap, width, bottom=accuracy, color="#b4530930", edgecolor="#b45309", linewidth=0.8)
        top.plot([0, 1], [0, 1], color="#616e7c", linestyle="--", linewidth=1)
        top.set(ylabel="share right", ylim=(0, 1), xlim=(0, 1))
        bottom.bar(center, bins.count, width, color="#9aa5b1")
        bottom.set(xlabel="confidence", ylabel="samples")
        return _svg(figure)


def _svg(figure: Figure) -> Markup:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=_NO_METADATA, transparent=True)
    text = buffer.getvalue()
    return Markup(text[text.index("<svg") :])  # matplotlib escapes the text it draws

"""Label issues found in out-of-fold predictions, as tables and as one page."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import jinja2
import torch
from torch import Tensor

from medbolt.core.files import atomic_write
from medbolt.core.stats import auroc
from medbolt.core.thumbnail import thumbnail
from medbolt.noisy.quality.confident_joint import (
    ConfidentJoint,
    confident_joint,
    label_issues,
    normalized_margin,
    self_confidence,
)
from medbolt.noisy.quality.division import Examined
from medbolt.noisy.quality.table import ranks, write_csv

_MOST_PICTURES, _MOST_PAIRS = 48, 12


@dataclass(frozen=True, eq=False)
class Issues:
    """What out-of-fold predictions say of the labels, in the order of the training samples.

    Args:
        given: (N,) int64 labels.
        probabilities: (N, K) float64 out of fold.
        estimate: The joint of given and true labels.
        margin: (N,) normalized margins.
        flagged: (N,) bool: labels taken for wrong.
        wrong: (N,) bool: labels that are wrong, where the data know the truth.
    """

    given: Tensor
    probabilities: Tensor
    estimate: ConfidentJoint
    margin: Tensor
    flagged: Tensor
    wrong: Tensor | None

    @classmethod
    def of(cls, examined: Examined) -> "Issues":
        """Judge the labels of training samples."""
        given, probabilities = examined.given, examined.probabilities
        return cls(
            given,
            probabilities,
            confident_joint(given, probabilities),
            normalized_margin(given, probabilities),
            label_issues(given, probabilities),
            None if examined.clean is None else examined.clean != given,
        )

    @property
    def suggested(self) -> Tensor:
        """(N,) int64: the most probable class."""
        return self.probabilities.argmax(1)

    @property
    def agreement(self) -> float:
        """Share of samples whose label is the most probable class."""
        return float((self.suggested == self.given).double().mean())

    @property
    def is_weak(self) -> bool:
        """Whether the model knows no more of the labels than which is the most frequent."""
        return self.agreement <= float(torch.bincount(self.given).max()) / len(self.given)

    @property
    def sentence(self) -> str:
        """The result in one line."""
        rate, flagged = _percent(self.estimate.noise_rate), int(self.flagged.sum())
        doubt = "; do not trust it: the model predicts badly, train it longer" if self.is_weak else ""
        return f"estimated noise rate {rate}; {flagged} of {len(self.given)} labels look wrong{doubt}"

    @property
    def truth(self) -> dict[str, str]:
        """How right this is, by name; empty where the truth is not known."""
        if self.wrong is None:
            return {}
        found = (self.flagged & self.wrong).sum()
        facts = {"true noise rate": _percent(self.wrong.double().mean())}
        if self.flagged.any():
            facts["flagged labels that are wrong"] = _percent(found / self.flagged.sum())
        if self.wrong.any():
            facts["wrong labels that are flagged"] = _percent(found / self.wrong.sum())
        if self.wrong.any() and not self.wrong.all():
            facts["AUROC of the margin"] = f"{auroc(self.wrong, -self.margin):.3f}"
        return facts


def write_issues(issues: Issues, examined: Examined, folder: Path, folds: int) -> None:
    """Write ``issues.csv``, ``noise_matrix.csv``, ``summary.json`` and ``report.html``, each all or nothing.

    Raises:
        UserError: if a file cannot be written.
    """
    ids, names = examined.ids, list(examined.class_names)
    margin = issues.margin.tolist()
    given, suggested = ([names[k] for k in labels.tolist()] for labels in (issues.given, issues.suggested))
    columns = {
        "id": ids,
        "given": given,
        "suggested": suggested,
        "self_confidence": self_confidence(issues.given, issues.probabilities).tolist(),
        "normalized_margin": margin,
        "rank": ranks(margin),
        "is_issue": [int(flag) for flag in issues.flagged.tolist()],
    }
    order = sorted(range(len(ids)), key=columns["rank"].__getitem__)
    write_csv(folder / "issues.csv", {name: [column[place] for place in order] for name, column in columns.items()})
    matrix = issues.estimate.transition.T.tolist()  # a column each label
    write_csv(folder / "noise_matrix.csv", {"true": names} | dict(zip(names, matrix, strict=True)))
    summary = {
        "noise_rate": issues.estimate.noise_rate,
        "samples": len(ids),
        "flagged": int(issues.flagged.sum()),
        "agreement": issues.agreement,
    }
    with atomic_write(folder / "summary.json") as temporary:
        temporary.write_text(json.dumps(summary, indent=2), encoding="utf-8")
    shown = [place for place in order if columns["is_issue"][place]][:_MOST_PICTURES]
    pictures = [
        {
            "image": None if (picture := examined.picture(place)) is None else thumbnail(picture),
            "id": ids[place],
            "given": given[place],
            "suggested": suggested[place],
            "probability": float(issues.probabilities[place].max()),
        }
        for place in shown
    ]
    page = _template().render(
        issues=issues,
        names=names,
        data=examined.data,
        groups=examined.groups,
        folds=folds,
        labelled=torch.bincount(issues.given, minlength=len(names)).tolist(),
        flagged=torch.bincount(issues.given[issues.flagged], minlength=len(names)).tolist(),
        transition=issues.estimate.transition.tolist(),
        pairs=issues.estimate.pairs()[:_MOST_PAIRS],
        pictures=pictures,
        created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("medbolt-noisy"),
    )
    with atomic_write(folder / "report.html") as temporary:
        temporary.write_text(page, encoding="utf-8")


def _percent(share: Tensor | float) -> str:
    return f"{100 * float(share):.1f} %"


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("medbolt.noisy.quality", ""),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("issues.html.j2")

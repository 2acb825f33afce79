"""What a reader of a report must be warned of."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from medbolt.core import stats
from medbolt.core.errors import listed
from medbolt.core.report.card import DataCard
from medbolt.core.report.numbers import Numbers

_FEW_SAMPLES = 20
_FEW_FOR_CALIBRATION = 500
_COLLAPSE = 0.9  # share of predictions that goes to one class


@dataclass(frozen=True)
class Finding:
    """One sentence or two that the reader must know."""

    severity: Literal["warning", "note"]
    title: str
    text: str


def findings(numbers: Numbers, card: DataCard | None) -> list[Finding]:
    """Return the warnings, then the notes, of one prediction table.

    Args:
        numbers: The table and its numbers.
        card: What the data module told.
    """
    found = [*_leakage(card), *_collapse(numbers), *_support(numbers), *_calibration(numbers), *_intervals(numbers)]
    return sorted(found, key=lambda finding: finding.severity == "note")


def _leakage(card: DataCard | None) -> Iterator[Finding]:
    if card is not None and card.shared_ids:
        text = f"{card.shared_ids} samples are in the training and in the test set: every number below is too good."
        yield Finding("warning", "Leakage", text)
    if card is not None and card.shared_groups:
        text = (
            f"{card.shared_groups} groups (patients, lesions) have samples in the training and in the test set: the "
            "numbers below are too good for new patients."
        )
        yield Finding("warning", "Leakage", text)


def _collapse(numbers: Numbers) -> Iterator[Finding]:
    names, true, predicted = numbers.table.class_names, numbers.truth.mean(0), numbers.predicted.mean(0)
    top = int(predicted.argmax())
    collapsed = not numbers.table.multilabel and predicted[top] >= _COLLAPSE and predicted[top] > true[top] + 0.05
    if collapsed:
        text = (
            f"{predicted[top]:.0%} of the predictions are '{names[top]}', which is {true[top]:.0%} of the samples: the "
            "model has learned little but one class."
        )
        yield Finding("warning", "Collapse", text)
    never = [name for name, t, p in zip(names, true, predicted, strict=True) if t > 0 and p == 0]
    if never:
        yield Finding("warning", "Never predicted", f"No sample is predicted as {listed(never)}, though some are.")


def _support(numbers: Numbers) -> Iterator[Finding]:
    count = numbers.truth.sum(0)
    absent = [name for name, n in zip(numbers.table.class_names, count, strict=True) if n == 0]
    if absent:
        text = f"No test sample is {listed(absent)}; means over classes leave out what is not there."
        yield Finding("warning", "Absent classes", text)
    few = [f"{name} ({n})" for name, n in zip(numbers.table.class_names, count, strict=True) if 0 < n < _FEW_SAMPLES]
    if few:
        yield Finding("note", "Few samples", f"Fewer than {_FEW_SAMPLES} test samples: {', '.join(few)}.")


def _calibration(numbers: Numbers) -> Iterator[Finding]:
    if numbers.table.multilabel:
        return
    probability, target = numbers.table.probability, numbers.table.target
    gap = float(probability.max(axis=1).mean()) - stats.accuracy(target, numbers.table.prediction)
    if abs(gap) > 0.05 and stats.calibration_error(target, probability) > 0.05:
        direction = "above" if gap > 0 else "below"
        text = (
            f"Mean confidence is {abs(gap):.1%} {direction} accuracy: do not read the probabilities as risks before "
            "recalibrating on validation data, for instance by temperature scaling."
        )
        yield Finding("warning", "Overconfident" if gap > 0 else "Underconfident", text)
    if len(target) < _FEW_FOR_CALIBRATION:
        text = f"The calibration error of {len(target)} samples is biased upwards; read it with its interval."
        yield Finding("note", "Calibration", text)


def _intervals(numbers: Numbers) -> Iterator[Finding]:
    if numbers.groups is None:
        text = (
            "The table names no groups, so the intervals take all samples as independent. With several images a "
            "patient they are too narrow."
        )
        yield Finding("note", "No groups", text)
    if numbers.stratified:
        smallest = int(np.min(numbers.units[numbers.units > 0]))
        unit = "samples" if numbers.groups is None else "groups"
        text = f"The smallest class has {smallest} {unit}, so the bootstrap keeps the number of {unit} in each class."
        yield Finding("note", "Stratified intervals", text)

"""The numbers of a report: estimates with intervals, overall, by class and by domain."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from medbolt.core import stats
from medbolt.core.errors import UserError
from medbolt.core.predictions.table import Predictions
from medbolt.core.stats.auroc import indicators

_LEVEL = 0.95
_FEW_UNITS = 10  # an unstratified bootstrap would often miss a class with fewer
_SLOW = 10_000  # samples whose intervals take more than a few seconds


@dataclass(frozen=True)
class ClassRow:
    """How one class fares."""

    name: str
    samples: int
    predictions: int
    recall: stats.Interval | None
    precision: stats.Interval | None
    auroc: stats.Interval | None


@dataclass(frozen=True)
class DomainRow:
    """How one domain fares."""

    name: str
    samples: int
    classes: int
    """Classes that have samples in this domain."""
    metrics: dict[str, stats.Interval | None]


class Numbers:
    """Compute a report's numbers from one prediction table.

    Intervals are percentile bootstrap intervals that resample groups where the table has them, and keep the number of
    groups in each class if a class has few. Where no interval can be given its ends are NaN; an undefined estimate is
    None.

    Args:
        table: Predictions, all labelled, at least one.
        replicates: Bootstrap replicates of each interval.

    Example:
        >>> import pandas as pd
        >>> p = np.array([0.9, 0.2, 0.6, 0.1] * 5)
        >>> frame = pd.DataFrame({"id": np.arange(20), "target": [0, 1, 1, 1] * 5, "p_0": p, "p_1": 1 - p})
        >>> print(Numbers(Predictions(frame, ["healthy", "ill"])).overall()["Balanced accuracy"])
        0.833 (0.700 to 0.967)
    """

    def __init__(self, table: Predictions, replicates: int = 2000) -> None:
        self.table = table
        self.replicates = replicates
        self.truth = indicators(table.target, len(table.class_names))
        """(n, K) bool."""
        self.predicted = indicators(table.prediction, len(table.class_names))
        """(n, K) bool."""
        self.groups = table.groups
        self.units = _units_per_class(self.truth, self.groups)
        """(K,) groups, or samples if there are no groups, that have the class."""
        self.stratified = not table.multilabel and bool((self.units[self.units > 0] < _FEW_UNITS).any())
        """Whether the intervals keep the number of units in each class."""

    def overall(self) -> dict[str, stats.Interval | None]:
        """Return the metrics of all samples, by name."""
        prediction, probability = self.table.prediction, self.table.probability
        metrics = self.headline()
        if not self.table.multilabel:
            metrics["Accuracy"] = self._interval(stats.accuracy, prediction)
            if self.table.run.get("task") == "ordinal":
                metrics["Quadratic kappa"] = self._interval(stats.quadratic_kappa, prediction)
            metrics["Calibration error"] = self._interval(stats.calibration_error, probability)
        metrics["Brier score"] = self._interval(stats.brier_score, probability)
        return metrics

    def headline(self) -> dict[str, stats.Interval | None]:
        """Return the metrics that compare models, and domains, fairly under imbalance."""
        name = "AUROC" if len(self.table.class_names) == 2 and not self.table.multilabel else "Macro AUROC"
        auroc = {name: self._interval(stats.macro_auroc, self.table.probability)}
        if self.table.multilabel:
            return auroc
        return {"Balanced accuracy": self._interval(stats.balanced_accuracy, self.table.prediction)} | auroc

    def by_class(self) -> list[ClassRow]:
        """Return a row a class."""
        classes = range(len(self.table.class_names))
        progress = tqdm(classes, desc="classes", leave=False, disable=len(self.table) < _SLOW)
        return [self._class_row(k) for k in progress]

    def by_domain(self) -> list[DomainRow]:
        """Return a row a domain, the worst first; none unless there are at least two."""
        domain = self.table.frame["domain"].fillna(-1).to_numpy(np.int64)
        present = [d for d in np.unique(domain) if d >= 0]
        if len(present) < 2:
            return []
        parts = [(d, Numbers(self.table.where(domain == d), self.replicates)) for d in present]
        rows = [
            DomainRow(str(self.table.domain_names[d]), len(part.table), int(part.truth.any(0).sum()), part.headline())
            for d, part in parts
        ]
        return sorted(rows, key=lambda row: first_estimate(row.metrics))

    def confident_errors(self, most: int = 12) -> NDArray[np.int64]:
        """Return the positions of the wrong predictions that the model was surest of, the surest first."""
        if self.table.multilabel:
            return np.zeros(0, np.int64)
        wrong = np.flatnonzero(self.table.prediction != self.table.target)
        confidence = self.table.probability[wrong].max(axis=1, initial=0)
        return wrong[np.argsort(-confidence, kind="stable")][:most]

    def _interval(self, statistic: stats.Statistic, output: NDArray[Any]) -> stats.Interval | None:
        return self._bootstrap(statistic, self.table.target, output, self.groups, self.stratified)

    def _class_row(self, k: int) -> ClassRow:
        truth, predicted = self.truth[:, k], self.predicted[:, k]
        return ClassRow(
            str(self.table.class_names[k]),
            int(truth.sum()),
            int(predicted.sum()),
            # among the members of the class only, so that no replicate is without one
            self._bootstrap(stats.accuracy, truth[truth], predicted[truth], self._groups_of(truth)),
            self._bootstrap(stats.accuracy, predicted[predicted], truth[predicted], self._groups_of(predicted)),
            self._class_auroc(truth, self.table.probability[:, k]),
        )

    def _class_auroc(self, truth: NDArray[np.bool_], score: NDArray[np.float64]) -> stats.Interval | None:
        if self.groups is not None or min(truth.sum(), (~truth).sum()) < 2:
            return self._bootstrap(stats.auroc, truth, score, self.groups, stratified=True)
        return stats.delong_interval(truth, score, _LEVEL)

    def _groups_of(self, rows: NDArray[np.bool_]) -> NDArray[Any] | None:
        return None if self.groups is None else self.groups[rows]

    def _bootstrap(
        self,
        statistic: stats.Statistic,
        target: NDArray[Any],
        output: NDArray[Any],
        groups: NDArray[Any] | None,
        stratified: bool = False,
    ) -> stats.Interval | None:
        estimate = float(statistic(target, output)) if len(target) else np.nan
        if np.isnan(estimate):
            return None
        try:
            return stats.bootstrap_interval(
                statistic,
                target,
                output,
                groups=groups,
                stratified=stratified,
                replicates=self.replicates,
                level=_LEVEL,
            )
        except UserError:  # too few units
            return stats.Interval(estimate, np.nan, np.nan, _LEVEL)


def first_estimate(metrics: dict[str, stats.Interval | None]) -> float:
    """Return the estimate of the first metric, for ordering; infinity if it is undefined."""
    first = next(iter(metrics.values()))
    return np.inf if first is None else first.estimate


def _units_per_class(truth: NDArray[np.bool_], groups: NDArray[Any] | None) -> NDArray[np.int64]:
    if groups is None:
        return truth.sum(0)
    unit = np.unique(groups, return_inverse=True)[1]
    return np.array([len(np.unique(unit[column])) for column in truth.T])

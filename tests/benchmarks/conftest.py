"""Figures: ratios of our time to the obvious alternative's, both measured in one run, printed as a table at the end."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest


@dataclass
class Figures:
    """The table of the figures measured so far."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)

    def compare(
        self, name: str, ours: Callable[[], object], other: Callable[[], object], goal: str, rounds: int = 9
    ) -> float:
        """Time two functions in turns, add a row with the ratio of their medians, and return it."""
        times: tuple[list[float], list[float]] = ([], [])
        for number in range(rounds + 1):  # the first round warms up
            for function, taken in zip((ours, other), times, strict=True):
                start = time.perf_counter()
                function()
                if number:
                    taken.append(time.perf_counter() - start)
        ours_median, other_median = map(statistics.median, times)
        self.add(name, f"{ours_median:.4g} s / {other_median:.4g} s", ours_median / other_median, goal)
        return ours_median / other_median

    def add(self, name: str, measured: str, value: float, goal: str) -> None:
        """Add a row."""
        self.rows.append((name, measured, f"{value:.3g}", goal))


_figures = pytest.StashKey[Figures]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_figures] = Figures()


@pytest.fixture
def figures(request: pytest.FixtureRequest) -> Figures:
    return request.config.stash[_figures]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = [("figure", "measured", "value", "goal"), *config.stash[_figures].rows]
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    terminalreporter.section("figures")
    for row in rows:
        terminalreporter.line("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))

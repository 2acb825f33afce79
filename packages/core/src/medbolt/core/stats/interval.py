"""What an estimate is worth: the results that the functions of this package return."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Interval:
    """An estimate with its confidence interval.

    Example:
        >>> print(Interval(0.75189, 0.70419, 0.79959, level=0.95))
        0.752 (0.704 to 0.800)
    """

    estimate: float
    low: float
    high: float
    level: float
    """Nominal coverage in (0, 1)."""
    discarded: int = 0
    """Bootstrap replicates on which the statistic was undefined (a class was not drawn)."""

    def __str__(self) -> str:
        return f"{self.estimate:.3f} ({self.low:.3f} to {self.high:.3f})"


@dataclass(frozen=True)
class Difference(Interval):
    """First minus second, with its confidence interval and two-sided p-value.

    Example:
        >>> print(Difference(0.1145, 0.0459, 0.1831, level=0.95, p_value=0.0011))
        0.115 (0.046 to 0.183), p = 0.0011
    """

    p_value: float = float("nan")

    def __str__(self) -> str:
        return f"{super().__str__()}, p = {self.p_value:.2g}"

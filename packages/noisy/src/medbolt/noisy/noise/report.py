"""What noise did to labels: rates, transition matrix, and whether anything can be learnt from them."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class NoiseReport:
    """The noise found by comparing given labels with clean ones.

    Args:
        rate: Share of samples whose label changed.
        class_rates: (K,) float64, the same for each clean class; NaN for a class without samples.
        transition: (K, K) float64 empirical transition matrix: entry [i, j] is the share of class i labelled j; rows of
            NaN for classes without samples.
        limit: Rate from which the noise model leaves no class identifiable: (K - 1) / K for symmetric noise.

    Example:
        >>> report = noise_report(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), num_classes=2)
        >>> report.rate, report.class_rates.tolist(), report.identifiable
        (0.25, [0.5, 0.0], False)
    """

    rate: float
    class_rates: Tensor
    transition: Tensor
    limit: float

    @property
    def identifiable(self) -> bool:
        """Whether every class is labelled rightly more often than as any other one class."""
        return mislabelled_class(self.transition) is None


def noise_report(clean: Tensor, noisy: Tensor, num_classes: int, limit: float | None = None) -> NoiseReport:
    """Compare given labels with clean ones.

    Args:
        clean: (N,) int64 true classes.
        noisy: (N,) int64 given labels.
        num_classes: Number of classes K.
        limit: Largest rate that leaves classes identifiable; (K - 1) / K, that of symmetric noise, by default.

    Example:
        >>> noise_report(torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1]), num_classes=2).transition
        tensor([[0.5000, 0.5000],
                [0.0000, 1.0000]], dtype=torch.float64)
    """
    one_hot = torch.nn.functional.one_hot(noisy, num_classes).double()
    transition = class_means(one_hot, clean, num_classes)
    rate = float((clean != noisy).double().mean())
    return NoiseReport(rate, 1 - transition.diagonal(), transition, limit or (num_classes - 1) / num_classes)


def class_means(rows: Tensor, targets: Tensor, num_classes: int) -> Tensor:
    """Return the mean row of each class, (K, C) float64; NaN for a class without samples.

    Example:
        >>> class_means(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), 2)
        tensor([[2.],
                [nan]], dtype=torch.float64)
    """
    sums = torch.zeros(num_classes, rows.shape[1], dtype=torch.float64).index_add_(0, targets, rows.double())
    return sums / torch.bincount(targets, minlength=num_classes).unsqueeze(1)


def mislabelled_class(transition: Tensor) -> tuple[int, int] | None:
    """Return the first class that is labelled rightly no more often than as another, and that other; else ``None``.

    Example:
        >>> mislabelled_class(torch.tensor([[0.7, 0.3], [0.6, 0.4]]))
        (1, 0)
    """
    wrong, other = transition.clone().fill_diagonal_(-1).max(1)
    beyond = wrong >= transition.diagonal() - 1e-9  # False for NaN
    if not beyond.any():
        return None
    first = int(beyond.nonzero()[0])
    return first, int(other[first])

"""How sure DivideMix must be of a label to learn from it: less for rare classes."""

from torch import Tensor


def log_frequency_thresholds(counts: Tensor, head: float, tail: float) -> Tensor:
    r"""Return a threshold a class that rises with the logarithm of the class's frequency.

    .. math::
        t_c = \mathrm{clip}\left(t_{tail} + (t_{head} - t_{tail})
        \frac{\log n_c - \log n_{\min}}{\log n_{\max} - \log n_{\min}},\ 0.2,\ 0.95\right)

    The smallest and largest count are those of classes that have samples. Where all counts are equal, and for a class
    without samples, it is that of the rarest class.

    Args:
        counts: (C,) samples labelled as each class.
        head: Threshold of the most frequent class.
        tail: Threshold of the rarest class.

    Returns:
        (C,) float64.

    Example:
        >>> log_frequency_thresholds(torch.tensor([1000, 100, 10]), head=0.8, tail=0.4)
        tensor([0.8000, 0.6000, 0.4000], dtype=torch.float64)
    """
    logs = counts.double().log()
    smallest, largest = logs[counts > 0].aminmax()
    share = ((logs - smallest) / (largest - smallest)).nan_to_num(0.0).clamp(0, 1)
    return (tail + (head - tail) * share).clamp(0.2, 0.95)

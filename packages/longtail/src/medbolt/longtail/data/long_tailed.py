"""Any data module with a long tail of classes, as long as one wants."""

from typing import Literal, assert_never

import numpy as np

from medbolt.core import DataModuleWrapper, ImageDataModule, ImageDataset, UserError
from medbolt.core.data.base import Split
from medbolt.core.data.splits import seeded_keys

Profile = Literal["exponential", "step", "pareto"]


class LongTailed(DataModuleWrapper):
    r"""Thin out the training classes of a data module to an imbalance ratio; keep validation and test.

    .. math:: n_i = \min\big(a_i,\ \mathrm{round}(n_{\max}\, g(i / (C - 1)))\big), \quad
        g(x) = \rho^{-x}\ \text{(exponential)},\quad [x < \tfrac12] + \rho^{-1} [x \ge \tfrac12]\ \text{(step)},\quad
        \big(1 + (\rho^{1/6} - 1)\, x\big)^{-6}\ \text{(pareto)}

    for the class of rank i by its available samples :math:`a_i`, the most frequent first. Every class that has samples
    keeps at least one; class indices stay. A class that is rarer than its place in the profile stays as it is. With the
    same seed a steeper tail is part of every gentler one.

    Args:
        data: The data module to take training samples from.
        ratio: Imbalance ratio :math:`\rho` of the most frequent to the rarest class, at least 1.
        profile: How the counts fall: ``"exponential"`` (MONICA's rule), ``"step"``, half the classes frequent and half
            rare, or ``"pareto"``, a power law, which falls faster at first.
        seed: Which samples.
        largest: Samples :math:`n_{\max}` of the most frequent class; by default all it has.

    Raises:
        ValueError: if ``ratio`` is below 1 or ``largest`` not positive.
        UserError: if the training samples have no or several classes each.

    Source: MONICA, arXiv 2410.02010 (ratio 100, 200 and 500 with ``largest`` 5000 of ISIC 2019 and 10000 of NCT-CRC-HE;
    20 of HyperKvasir; 100 of MedMNIST). The pareto exponent 6 is that of ImageNet-LT, arXiv 1904.05160.

    Example:
        >>> from medbolt.core import SyntheticFundusDataModule
        >>> data = SyntheticFundusDataModule(300, 8, 8, prevalence=[16, 8, 4, 2, 1])
        >>> LongTailed(data, ratio=16, largest=64).class_counts
        [64, 32, 16, 8, 4]
    """

    def __init__(
        self,
        data: ImageDataModule,
        ratio: float = 100.0,
        profile: Profile = "exponential",
        seed: int = 0,
        largest: int | None = None,
    ) -> None:
        super().__init__(data)
        if ratio < 1:
            raise ValueError(f"ratio must be at least 1, got {ratio}")
        if largest is not None and largest < 1:
            raise ValueError(f"largest must be at least 1, got {largest}")
        self.ratio, self.tail_seed, self.largest = ratio, seed, largest
        self.profile: Profile = profile

    def load(self, split: Split) -> ImageDataset:
        """Return a split; of the training split the chosen samples, in their old order."""
        dataset = super().load(split)
        return dataset.select(self._chosen(dataset)) if split == "train" else dataset

    def _chosen(self, dataset: ImageDataset) -> np.ndarray:
        if dataset.targets is None or dataset.targets.ndim != 1:
            raise UserError(
                f"LongTailed needs one class a sample, but {type(self.data).__name__} has "
                f"{'no labels' if dataset.targets is None else 'several labels a sample'}; use data of single classes."
            )
        classes = dataset.targets.numpy()
        available = np.bincount(classes, minlength=self.num_classes)
        wanted = long_tailed_counts(available, self.ratio, self.profile, self.largest)
        shuffled = np.argsort(seeded_keys(list(dataset.ids), self.tail_seed), kind="stable")
        by_class = shuffled[np.argsort(classes[shuffled], kind="stable")]
        before = available.cumsum() - available
        rank = np.arange(len(by_class)) - before[classes[by_class]]
        return np.sort(by_class[rank < wanted[classes[by_class]]])


def long_tailed_counts(
    available: np.ndarray, ratio: float, profile: Profile = "exponential", largest: int | None = None
) -> np.ndarray:
    """Return how many samples of each class to keep, (C,) int64; see :class:`LongTailed`.

    Args:
        available: (C,) samples of each class.
        ratio: Imbalance ratio.
        profile: How the counts fall.
        largest: Samples of the most frequent class; by default all it has.

    Example:
        >>> long_tailed_counts(np.array([50, 100, 100]), ratio=100).tolist()
        [1, 100, 10]
    """
    present = np.count_nonzero(available)
    x = np.linspace(0, 1, present) if present > 1 else np.zeros(present)
    match profile:
        case "exponential":
            share = ratio**-x
        case "step":
            share = np.where(x < 0.5, 1, 1 / ratio)
        case "pareto":
            share = (1 + (ratio ** (1 / 6) - 1) * x) ** -6.0
        case _:
            assert_never(profile)
    order = np.argsort(-available, kind="stable")[:present]
    wanted = np.zeros(len(available), dtype=np.int64)
    wanted[order] = np.maximum(np.floor((largest or available.max()) * share + 0.5), 1)  # halves up, as MONICA
    return np.minimum(wanted, available)

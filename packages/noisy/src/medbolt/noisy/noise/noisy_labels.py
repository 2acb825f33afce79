"""A data module with wrong labels: what a method is tested on."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from torch import Tensor

from medbolt.core.data.base import DataModuleWrapper, ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.views import SelectedImages
from medbolt.core.errors import UserError
from medbolt.noisy.noise.base import LabelNoise
from medbolt.noisy.noise.report import NoiseReport, noise_report


class NoisyLabels(DataModuleWrapper):
    """Put noise into the labels of a data module; test labels stay clean.

    Everything of the data module tells of the noisy labels: batches, ``class_counts``, ``train_targets``, the
    fingerprint. The clean ones are in :meth:`clean_targets`, for diagnostics, and in no batch. A sample's noisy label
    depends on the seed and its id only: it is the same in any order, split and subset.

    Args:
        data: The data module to put noise into.
        noise: The noise model.
        seed: Another seed draws other labels.
        splits: Splits to put noise into. As in LNMBench validation labels are noisy too by default, since who has noisy
            training data selects models by them.
        by_group: Draw once a group (patient): where noise depends on the class only, a group's samples of one class are
            then mislabelled alike.

    Raises:
        UserError: if a split has no class labels, or ``by_group`` is set and the data have no groups.

    Example:
        >>> from medbolt.core import SyntheticFundusDataModule
        >>> from medbolt.noisy.noise.symmetric import SymmetricNoise
        >>> data = NoisyLabels(SyntheticFundusDataModule(200, 50, 50), SymmetricNoise(0.4))
        >>> data.report().rate
        0.4...
        >>> bool((data.train_targets == data.clean_targets()).all())
        False
    """

    def __init__(
        self,
        data: ImageDataModule,
        noise: LabelNoise,
        seed: int = 0,
        splits: Sequence[Literal["train", "val"]] = ("train", "val"),
        by_group: bool = False,
    ) -> None:
        super().__init__(data)
        if unknown := set(splits) - {"train", "val"}:
            raise ValueError(f"splits must be train and val, whose labels may be noisy, got {sorted(unknown)}")
        self.noise, self.noise_seed, self.splits, self.by_group = noise, seed, tuple(splits), by_group

    def load(self, split: Split) -> ImageDataset:
        """Return a split, with noisy labels where wanted."""
        dataset = super().load(split)
        if split not in self.splits:
            return dataset
        if dataset.targets is None:
            raise UserError(f"the {split} split of {type(self.data).__name__} has no labels to put noise into.")
        if self.by_group and dataset.groups is None:
            raise UserError(f"{type(self.data).__name__} has no groups to draw by; name its group column.")
        images = SelectedImages(dataset.images, np.asarray(dataset.rows))
        groups = dataset.groups if self.by_group else None
        noisy = self.noise(dataset.targets, self.num_classes, self.noise_seed, dataset.ids, images, groups)
        return replace(dataset, targets=noisy)

    def clean_targets(self, split: Split = "train") -> Tensor:
        """Return the labels before the noise, (N,) int64, in the order of the split: for diagnostics only."""
        targets = self.data.dataset(split).targets
        if targets is None:
            raise UserError(f"the {split} split of {type(self.data).__name__} has no labels.")
        return targets

    def report(self, split: Split = "train") -> NoiseReport:
        """Return rates and transition matrix of the noise in a split."""
        noisy = self.dataset(split).targets
        clean = self.clean_targets(split)
        assert noisy is not None
        return noise_report(clean, noisy, self.num_classes, self.noise.max_rate(self.num_classes))

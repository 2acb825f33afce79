"""Any data module with another sampler for training."""

from typing import Literal

from medbolt.core import DataModuleWrapper, EpochSampler, ImageDataModule, ImageDataset, UserError
from medbolt.longtail.samplers.class_balanced import ClassBalancedSampler
from medbolt.longtail.samplers.factory import SamplerCallable


class Resampled(DataModuleWrapper):
    """Draw the training samples of a data module with a sampler that knows their classes; keep all else.

    ``class_counts`` stay those of the data: a loss that corrects for them does so on top of the sampler.

    Args:
        data: The data module to draw from.
        sampler: Makes the sampler from targets, seed, number of processes, rank and tail: one of the samplers of this
            package, with its own options left to give. In YAML a ``class_path`` with ``init_args``.

    Raises:
        UserError: at ``fit``, if the training samples have no targets.

    Example:
        >>> from functools import partial
        >>> from medbolt.core import MedMNISTDataModule
        >>> from medbolt.longtail import RepeatFactorSampler
        >>> data = Resampled(MedMNISTDataModule("breastmnist"), partial(RepeatFactorSampler, threshold=0.5))
    """

    def __init__(self, data: ImageDataModule, sampler: SamplerCallable = ClassBalancedSampler) -> None:
        super().__init__(data)
        self.sampler = sampler

    def train_sampler(self, dataset: ImageDataset, tail: Literal["drop", "repeat"]) -> EpochSampler:
        """Return the sampler of the training loader."""
        if dataset.targets is None:
            raise UserError(f"{type(self.data).__name__} has no labels to sample by; name its label column.")
        return self.sampler(dataset.targets, self.seed, self._world_size, self._rank, tail)

"""A second stream of training batches, drawn otherwise than the first: partners to mix with."""

from collections.abc import Iterator, Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import ImageDataModule, ResumableDataLoader, UserError, network_input
from medbolt.core.randomness import derive_seed, seeded
from medbolt.longtail.data.resampled import Resampled
from medbolt.longtail.samplers.factory import SamplerCallable

_TAG = 0x7061  # apart from the order and the augmentation of the first stream


class PartnerBatches:
    """Training batches of a data module under another sampler, by epoch and place in the epoch.

    What a place holds is a function of (seed, epoch, place), so a run resumed inside an epoch finds the partners that
    the uninterrupted run had, and processes together draw what one would. When the stream is shorter than the first,
    it begins again with another order.

    Args:
        who: Name of the method, for messages.
        sampler: Makes the sampler, see :class:`~medbolt.longtail.Resampled`.
        trainer: The trainer, whose data module is drawn from.

    Raises:
        UserError: if that is no data module of medbolt's kind.
    """

    def __init__(self, who: str, sampler: SamplerCallable, trainer: Trainer) -> None:
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not isinstance(data, ImageDataModule):
            raise UserError(
                f"{who} draws partners from the training data by class, which takes a data module of medbolt, such as "
                f"TableDataModule, but the trainer has {'none' if data is None else type(data).__name__}; pass one."
            )
        self.who = who
        self._data = Resampled(data, sampler)
        self._data.trainer = trainer  # which is the wrapped data module's too; its wrapper begins without
        self._data.seed = derive_seed(data.seed, _TAG)
        self._loader: ResumableDataLoader | None = None
        self._batches: Iterator[Any] = iter(())
        self._next = (-1, -1)  # the epoch and the place of what the iterator yields
        self.images, self.targets = Tensor(), Tensor()

    def fetch(self, epoch: int, place: int, module: LightningModule) -> None:
        """Make :attr:`images` and :attr:`targets` those of a place, on the module's device."""
        if self._loader is None:
            self._data.load_state_dict(self._data.state_dict())  # nothing to restore: the place says it all
            self._loader = self._data.train_dataloader()
        turn, within = divmod(place, len(self._loader))
        if self._next != (epoch, place) or within == 0:
            self._begin(self._loader, epoch, turn, within)
        self._next = (epoch, place + 1)
        with seeded(derive_seed(self._data.seed, epoch, place)):  # a loader that begins draws from torch's generator
            batch = next(self._batches)
        batch = module._on_before_batch_transfer(batch, 0)
        batch = module.trainer.strategy.batch_to_device(batch, dataloader_idx=0)
        self.images, self.targets = network_input(batch), batch["target" if isinstance(batch, Mapping) else 1]

    def images_like(self, images: Tensor) -> Tensor:
        """Return the partners' images in the precision of the images to mix with.

        Raises:
            UserError: if these have another shape.
        """
        if self.images.shape[1:] != images.shape[1:]:
            raise UserError(
                f"{self.who} mixes images of shape {tuple(images.shape[1:])}, as the network is given them, with "
                f"partners of shape {tuple(self.images.shape[1:])}, as the data module gives them; let the data "
                "module's transform do what the module does to its images."
            )
        return self.images.to(images)

    def _begin(self, loader: ResumableDataLoader, epoch: int, turn: int, place: int) -> None:
        sampler: Any = loader.sampler
        sampler.set_epoch(derive_seed(epoch, turn) % 2**31 if turn else epoch)
        if place:
            loader.load_state_dict(loader.state_dict() | {"batches": place})
        self._batches = iter(loader)

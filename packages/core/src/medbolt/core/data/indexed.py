"""Give the batches of any LightningDataModule an index, and take it away before the user's step sees them."""

import hashlib
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate

from medbolt.core.data.rebuilt import rebuilt
from medbolt.core.data.sampler import EpochSampler
from medbolt.core.errors import UserError

_FORWARDED = (
    "prepare_data",
    "val_dataloader",
    "test_dataloader",
    "predict_dataloader",
    "state_dict",
    "load_state_dict",
    "on_exception",
)


class Indexed(LightningDataModule):
    """Wrap a LightningDataModule whose batches carry no index, so that per-sample methods work with it.

    The training loader's samples travel with their position in its data set; before the batch reaches the device, and
    the module's ``training_step``, the position is taken off again and kept in :attr:`batch_index`. Batches may have
    any structure (tuple, dict, nested); the module sees exactly what it saw before. Everything else is the wrapped
    data module's: its attributes are read and set through the wrapper, as are those of its training set through the
    loader's ``dataset``.

    Args:
        data: The data module to wrap. Its ``train_dataloader`` returns one ``DataLoader`` over a map-style data set.

    Raises:
        UserError: if it returns something else.

    Example:
        >>> from lightning.pytorch.demos.boring_classes import BoringDataModule
        >>> data = Indexed(BoringDataModule())
    """

    def __init__(self, data: LightningDataModule) -> None:
        super().__init__()
        self.batch_index: Tensor | None = None
        self._samples: Any = None
        self.data = data
        self.prepare_data_per_node = data.prepare_data_per_node
        for hook in _FORWARDED:  # as attributes, for Lightning looks which hooks a data module overrides
            setattr(self, hook, getattr(data, hook))

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the wrapped data module."""
        if name == "data":
            raise AttributeError(name)
        return getattr(self.data, name)

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute: the wrapped data module's if it has one of this name and the wrapper has none."""
        own = "data" not in self.__dict__ or name in self.__dict__ or hasattr(type(self), name)
        if own or not hasattr(self.data, name):
            super().__setattr__(name, value)
        else:
            setattr(self.data, name, value)

    @property
    def trainer(self) -> Trainer | None:
        """The trainer, which is the wrapped data module's too."""
        return self.data.trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        if "data" in self.__dict__:  # the base class sets it first
            self.data.trainer = trainer

    @property
    def train_size(self) -> int:
        """Number of training samples: every index is below it."""
        return len(self.train_set)

    @property
    def train_set(self) -> Any:
        """The data set of the training loader."""
        if self._samples is None:
            self._samples = self._train_loader().dataset
        return self._samples

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training set's size and, where it shows them, its ``targets`` and ``indices``."""
        train = self.train_set
        digest = hashlib.sha256(str(len(train)).encode())
        for column in (getattr(train, "targets", None), getattr(train, "indices", None)):
            if column is not None:  # a tensor, an array or a list, of anything
                digest.update(repr(column.tolist() if hasattr(column, "tolist") else list(column)).encode())
        return digest.hexdigest()

    def setup(self, stage: str) -> None:
        """Set up the wrapped data module."""
        self.data.setup(stage)

    def teardown(self, stage: str) -> None:
        """Tear down the wrapped data module."""
        self.batch_index = self._samples = None
        self.data.teardown(stage)

    def train_dataloader(self) -> DataLoader[Any]:
        """Return the wrapped training loader with indices in its batches."""
        return _with_index(self._train_loader())

    def train_eval_dataloader(self) -> DataLoader[Any]:
        """Return this process's share of the training samples once each, in order, as the wrapped data set gives them.

        A foreign data set has one transform, so its augmentation, if any, stays.
        """
        loader = self._train_loader()
        world, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer is not None else (1, 0)
        return DataLoader(
            _IndexedSet(loader.dataset),
            batch_size=loader.batch_size or 32,
            sampler=EpochSampler(loader.dataset, False, num_replicas=world, rank=rank),  # pyright: ignore[reportArgumentType]
            num_workers=loader.num_workers,
            collate_fn=_IndexedCollate(loader.collate_fn),
        )

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take the index off a training batch; then do as the wrapped data module, or the module, does."""
        if isinstance(batch, _IndexedBatch):
            self.batch_index, batch = batch.positions, batch.batch
        return self._hook("on_before_batch_transfer")(batch, dataloader_idx)

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        """Do as the wrapped data module, or the module, does."""
        return self._hook("transfer_batch_to_device")(batch, device, dataloader_idx)

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Do as the wrapped data module, or the module, does."""
        return self._hook("on_after_batch_transfer")(batch, dataloader_idx)

    def _hook(self, name: str) -> Callable[..., Any]:
        """Return the hook Lightning would call without this wrapper: the data module's if it has its own."""
        module = self.trainer.lightning_module if self.trainer is not None else self.data
        return getattr(self.data if is_overridden(name, self.data) else module, name)

    def _train_loader(self) -> DataLoader[Any]:
        loader = self.data.train_dataloader()
        if not isinstance(loader, DataLoader) or isinstance(loader.dataset, IterableDataset):
            raise UserError(
                f"Indexed needs {type(self.data).__name__}.train_dataloader() to return one DataLoader over a "
                f"map-style data set, it returned {type(loader).__name__}; yield the index in the batches yourself."
            )
        return loader


class _IndexedBatch(NamedTuple):
    positions: Tensor
    batch: Any


class _IndexedSet(Dataset[tuple[int, Any]]):
    """Samples with their position; to everyone else, such as a ``worker_init_fn``, the data set that it wraps."""

    def __init__(self, dataset: Any) -> None:
        self.__dict__["_indexed"] = dataset

    def __getattr__(self, name: str) -> Any:
        if name == "_indexed":  # a copy has none yet
            raise AttributeError(name)
        return getattr(self._indexed, name)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self._indexed, name, value)

    def __len__(self) -> int:
        return len(self._indexed)

    def __getitem__(self, position: int) -> tuple[int, Any]:
        return int(position), self._indexed[position]

    @property
    def __getitems__(self) -> Callable[[list[int]], _IndexedBatch]:
        get = self._indexed.__getitems__  # it has none where the data set has none
        return lambda positions: _IndexedBatch(torch.tensor([int(i) for i in positions]), get(positions))


class _IndexedCollate:
    def __init__(self, collate: Callable[[list[Any]], Any] | None) -> None:
        self.collate = collate or default_collate

    def __call__(self, samples: list[tuple[int, Any]] | _IndexedBatch) -> _IndexedBatch:
        if isinstance(samples, _IndexedBatch):
            return _IndexedBatch(samples.positions, self.collate(samples.batch))
        positions, samples = zip(*samples, strict=True)  # pyright: ignore[reportAssignmentType]
        return _IndexedBatch(torch.tensor(positions), self.collate(list(samples)))


def _with_index(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Rebuild a loader over the same samples, drawn and loaded the same way, with indices in its batches."""
    if loader.batch_size is None and loader.batch_sampler is None:
        raise UserError("Indexed needs a DataLoader that batches; give it a batch_size.")
    return rebuilt(loader, _IndexedSet(loader.dataset), _IndexedCollate(loader.collate_fn))

"""The data module every medbolt data module is: splits of labelled images, loaders, and what methods ask about them."""

import hashlib
from abc import abstractmethod
from numbers import Integral
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.pytorch import LightningDataModule, Trainer
from torch import Tensor, nn

from medbolt.core.batch import collate
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.loader import ResumableDataLoader
from medbolt.core.data.sampler import EpochSampler
from medbolt.core.data.transforms import EvaluationTransform, TrainingTransform
from medbolt.core.errors import UserError, listed

Split = Literal["train", "val", "test"]

_FORWARDED = ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer", "on_exception")


class ImageDataModule(LightningDataModule):
    """Base of the data modules: subclasses say how to :meth:`load` a split and what the classes are called.

    What it tells (``num_classes``, ``class_counts``, ``train_targets``, ...) comes from labels: no image is decoded and
    no ``setup`` is needed, so the command line can link it into the model. Training order and augmentation are
    functions of (seed, epoch), the same for any number of workers and processes; evaluation loaders never repeat a
    sample to fill a process's share. Batches follow :class:`~medbolt.core.batch.Batch`.

    Args:
        batch_size: Samples a batch and a process.
        num_workers: Loading processes; 0 loads in the training process.
        image_size: Height and width in pixels of the default transforms; ``None`` keeps the size of the images.
        train_transform: Called with a dict of ``tv_tensors``; by default
            :class:`~medbolt.core.data.transforms.TrainingTransform`.
        eval_transform: The same for evaluation; by default
            :class:`~medbolt.core.data.transforms.EvaluationTransform`.
        seed: Seed of order, augmentation and, in subclasses, of splits.
        drop_last: Leave out the last training batch when it is not full. ``"auto"`` does so when there is a full one.
        store: Folder made by ``medbolt data prepare``: images come from there, already decoded and resized.

    Raises:
        UserError: if a number is out of its range; at ``setup`` when a split is empty, a class has no training sample,
            or there are fewer samples than processes.

    Example:
        >>> class Noise(ImageDataModule):
        ...     class_names = ["dark", "bright"]
        ...
        ...     def load(self, split):
        ...         images = torch.randint(0, 256, (8, 3, 32, 32), dtype=torch.uint8)
        ...         return ImageDataset(images, torch.arange(8) % 2, [f"{split}-{i}" for i in range(8)])
        >>> data = Noise(batch_size=4, image_size=None)
        >>> data.class_counts, next(iter(data.train_dataloader()))["image"].shape
        ([4, 4], torch.Size([4, 3, 32, 32]))
    """

    def __init__(
        self,
        batch_size: int = 32,
        num_workers: int = 0,
        image_size: int | None = 224,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        seed: int = 0,
        drop_last: bool | Literal["auto"] = "auto",
        store: Path | str | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("num_workers", num_workers, 0),
            ("image_size", image_size, 1),
        ):
            if value is not None and (not isinstance(value, Integral) or value < least):
                raise UserError(f"{name} of {type(self).__name__} must be a whole number from {least} on, got {value}.")
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.image_size = image_size
        # an empty nn.Sequential is a transform, though it is false
        self.train_transform = TrainingTransform(image_size) if train_transform is None else train_transform
        self.eval_transform = EvaluationTransform(image_size) if eval_transform is None else eval_transform
        self.seed = seed
        self.drop_last: bool | Literal["auto"] = drop_last
        self.store = None if store is None else Path(store)
        self._datasets: dict[Split, ImageDataset] = {}
        self._is_restored = False
        self._checks_splits = True

    @abstractmethod
    def load(self, split: Split) -> ImageDataset:
        """Return a split without transform; called once a split, by :meth:`dataset`."""

    @property
    @abstractmethod
    def class_names(self) -> list[str]:
        """Names of the classes, by class index."""

    @property
    def domain_names(self) -> list[str] | None:
        """Names of the acquisition sources, by domain index; ``None`` without domains."""
        return None

    def dataset(self, split: Split) -> ImageDataset:
        """Return a split: columns, and samples with the raw uint8 images."""
        if split not in self._datasets:
            dataset = self.load(split)
            if self.store is not None:
                from medbolt.core.data.store import with_store

                dataset = with_store(dataset, self.store)
            self._datasets[split] = dataset
        return self._datasets[split]

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.class_names)

    @property
    def train_targets(self) -> Tensor:
        """(N,) int64 or (N, C) float targets of the training samples."""
        targets = self.dataset("train").targets
        if targets is None:
            raise UserError(f"{type(self).__name__} has no labels to count or to train on; name its label column.")
        return targets

    @property
    def class_counts(self) -> list[int]:
        """Training samples of each class; positive labels of each finding when multi-label, rounded mass when soft."""
        targets = self.train_targets
        if targets.ndim == 1:
            return torch.bincount(targets, minlength=self.num_classes).tolist()
        return targets.sum(0).round().long().tolist()

    @property
    def train_size(self) -> int:
        """Size of the base training set: every training ``index`` is below it."""
        return self.dataset("train").base_size

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the training ids, indices, labels and class names: per-sample state belongs to these only."""
        train = self.dataset("train")
        digest = hashlib.sha256(repr((self.class_names, list(train.ids))).encode())
        for column in (train.rows, train.targets):
            if column is not None:
                digest.update(column.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def setup(self, stage: str) -> None:
        """Check the splits that the stage needs. Those of a wrapped data module are checked as its wrapper has them."""
        self._is_restored = False  # by the checkpoint of this fit, which comes next
        if not self._checks_splits:
            return
        needed: dict[str, tuple[Split, ...]] = {"fit": ("train", "val"), "validate": ("val",)}
        for split in needed.get(stage, ("test",)):
            dataset = self.dataset(split)
            if len(dataset) == 0:
                raise UserError(
                    f"the {split} split of {type(self).__name__} is empty; give it samples or another rule."
                )
            self._check_labels(split, dataset)
            dataset.images[int(dataset.rows[0])]  # an array is read here once and shared with the workers
        if stage == "fit" and (targets := self.dataset("train").targets) is not None and targets.ndim == 1:
            empty = [name for name, count in zip(self.class_names, self.class_counts, strict=True) if count == 0]
            if empty:
                what, verb = ("class", "is") if len(empty) == 1 else ("classes", "are")
                raise UserError(
                    f"{what} {listed(empty)} of {type(self).__name__} {verb} without training samples; add some or "
                    "leave the class out of class_names."
                )

    def train_dataloader(self) -> ResumableDataLoader:
        """Return the shuffled, augmented training samples."""
        self._require_restored()
        dataset = self.dataset("train")
        share = len(dataset) // self._world_size
        if self.drop_last is True and share < self.batch_size:
            raise UserError(
                f"batch_size {self.batch_size} with drop_last leaves no batch of the {share} training samples of a "
                "process; lower batch_size or set drop_last to 'auto'."
            )
        drop = self.drop_last is True or (self.drop_last == "auto" and share >= self.batch_size)
        sampler = self.train_sampler(dataset, tail="drop" if drop else "repeat")
        return self._loader("train", sampler, self.train_transform, drop)

    def train_sampler(self, dataset: ImageDataset, tail: Literal["drop", "repeat"]) -> EpochSampler:
        """Return the sampler of the training loader; override it to draw otherwise than uniformly."""
        return EpochSampler(dataset, True, self.seed, self._world_size, self._rank, tail)

    def train_eval_dataloader(self) -> ResumableDataLoader:
        """Return the training samples once each, in order and without augmentation."""
        return self._eval_loader("train")

    def val_dataloader(self) -> ResumableDataLoader:
        """Return the validation samples, once each."""
        return self._eval_loader("val")

    def test_dataloader(self) -> ResumableDataLoader:
        """Return the test samples, once each."""
        return self._eval_loader("test")

    def predict_dataloader(self) -> ResumableDataLoader:
        """Return the test samples, once each."""
        return self._eval_loader("test")

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must know to be resumed on the same data only."""
        return {"fingerprint": self.fingerprint, "class_names": list(self.class_names)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse a checkpoint of other classes, and to go on training on other data."""
        if state_dict["class_names"] != list(self.class_names):
            raise UserError(
                f"the checkpoint was trained on classes {listed(state_dict['class_names'])}, these data have "
                f"{listed(self.class_names)}; use a checkpoint trained on these classes."
            )
        if (
            self.trainer is not None
            and self.trainer.state.fn == "fit"
            and state_dict["fingerprint"] != self.fingerprint
        ):
            raise UserError(
                "the checkpoint belongs to other training data (ids, labels or subset differ); resume with the data it "
                "was trained on, or start anew from its weights."
            )
        self._is_restored = True

    @property
    def _world_size(self) -> int:
        return self.trainer.world_size if self.trainer is not None else 1

    @property
    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0

    def _require_restored(self) -> None:
        """Refuse the checkpoint of another data module: Lightning hands a state on by the name of the class."""
        trainer = self.trainer
        is_resuming = trainer is not None and trainer.fit_loop.is_resuming and trainer.ckpt_path is not None
        if is_resuming and not self._is_restored:
            raise UserError(
                f"the checkpoint was not trained on {type(self).__name__}; resume with the data it was trained on, or "
                "start anew from its weights."
            )

    def _check_labels(self, split: Split, dataset: ImageDataset) -> None:
        if dataset.targets is None or dataset.targets.ndim != 1:
            return
        wrong = ((dataset.targets < 0) | (dataset.targets >= self.num_classes)).nonzero()
        if len(wrong):
            row = int(wrong[0])
            raise UserError(
                f"sample '{dataset.ids[row]}' of the {split} split has label {int(dataset.targets[row])}, but "
                f"{type(self).__name__} has {self.num_classes} classes, 0 to {self.num_classes - 1}; correct the label "
                "or add its class."
            )

    def _eval_loader(self, split: Split) -> ResumableDataLoader:
        sampler = EpochSampler(self.dataset(split), False, self.seed, self._world_size, self._rank)
        return self._loader(split, sampler, self.eval_transform, False)

    def _loader(
        self, split: Split, sampler: EpochSampler, transform: nn.Module, drop_last: bool
    ) -> ResumableDataLoader:
        dataset = self.dataset(split)
        if len(dataset) < self._world_size:
            raise UserError(
                f"the {split} split has {len(dataset)} samples for {self._world_size} processes; use fewer devices."
            )
        return ResumableDataLoader(
            dataset.with_transform(transform),
            batch_size=self.batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            collate_fn=collate,
            drop_last=drop_last,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


class DataModuleWrapper(ImageDataModule):
    """Base of the wrappers: a data module that changes the splits of another one and keeps the rest.

    Subclasses override :meth:`load` and call ``super().load(split)`` for the split as the wrapped module has it. Hooks
    of the wrapped module are called as without the wrapper: once each, ``setup`` before the wrapper's, ``teardown``
    after.

    Args:
        data: The data module to wrap.

    Example:
        >>> class FirstHundred(DataModuleWrapper):
        ...     def load(self, split):
        ...         dataset = super().load(split)
        ...         return dataset.select(range(100)) if split == "train" else dataset
    """

    def __init__(self, data: ImageDataModule) -> None:
        self.data = data
        super().__init__(
            data.batch_size,
            data.num_workers,
            data.image_size,
            data.train_transform,
            data.eval_transform,
            data.seed,
            data.drop_last,
        )
        self.prepare_data_per_node = data.prepare_data_per_node
        for hook in _FORWARDED:  # as attributes, for Lightning looks which hooks a data module overrides
            setattr(self, hook, getattr(data, hook))

    @property
    def trainer(self) -> Trainer | None:
        """The trainer, which is the wrapped data module's too."""
        return self.data.trainer

    @trainer.setter
    def trainer(self, trainer: Trainer | None) -> None:  # pyright: ignore[reportIncompatibleVariableOverride]
        self.data.trainer = trainer

    def load(self, split: Split) -> ImageDataset:
        """Return the split of the wrapped data module."""
        return self.data.dataset(split)

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by class index."""
        return self.data.class_names

    @property
    def domain_names(self) -> list[str] | None:
        """Names of the acquisition sources, by domain index; ``None`` without domains."""
        return self.data.domain_names

    def prepare_data(self) -> None:
        """Let the wrapped data module download or unpack what it needs."""
        self.data.prepare_data()

    def setup(self, stage: str) -> None:
        """Set up the wrapped data module, then check the splits as they are here: the wrapped ones may be empty."""
        self.data._checks_splits = False
        try:
            self.data.setup(stage)
        finally:
            self.data._checks_splits = True
        super().setup(stage)

    def teardown(self, stage: str) -> None:
        """Tear down the wrapped data module."""
        super().teardown(stage)
        self.data.teardown(stage)

    def train_sampler(self, dataset: ImageDataset, tail: Literal["drop", "repeat"]) -> EpochSampler:
        """Return the wrapped data module's sampler, over the changed split."""
        return self.data.train_sampler(dataset, tail)

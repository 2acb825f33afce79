"""MONICA's long-tailed splits, with its groups of classes."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from torch import nn

from medbolt.core import TableDataModule, UserError
from medbolt.longtail.metrics.class_groups import ClassGroups

Source = Literal[
    "isic",
    "kvasir",
    "nct",
    "pathmnist",
    "bloodmnist",
    "tissuemnist",
    "dermamnist",
    "organamnist",
    "organcmnist",
    "organsmnist",
]

BOUNDS: Mapping[str, tuple[int, int, int]] = {
    "isic": (2, 5, 8),
    "kvasir": (4, 8, 14),
    "nct": (2, 5, 9),
    "pathmnist": (2, 5, 9),
    "bloodmnist": (3, 5, 8),
    "tissuemnist": (3, 5, 8),
    "dermamnist": (1, 5, 7),
    "organamnist": (3, 6, 11),
    "organcmnist": (3, 6, 11),
    "organsmnist": (3, 6, 11),
}
"""Where head, medium and tail classes end: MONICA's ``datasets.head``, ``.medium`` and ``.tail``, for all ratios."""


class MonicaSplit(TableDataModule):
    """One of MONICA's long-tailed splits, from the table that :func:`~medbolt.longtail.convert_monica` writes.

    MONICA numbers the classes by frequency: class 0 is the most frequent, in MedMNIST too. What counts as head, medium
    and tail are ranges of class numbers, :attr:`class_groups`. Test sets differ between imbalance ratios, and images of
    one lesion or patient may be in several splits.

    Args:
        manifest: The table, with columns ``path``, ``label`` and ``split``.
        source: Which of MONICA's data sets it is.
        root: Folder that the paths are relative to; that of the table by default.
        class_names: Names of the classes, the most frequent first; by default their numbers.
        batch_size: Samples a batch and a process. MONICA's is 256.
        num_workers: Loading processes; 0 loads in the training process.
        image_size: Height and width of the default transforms; ``None`` keeps the size of the images.
        train_transform: Replaces the default training transform.
        eval_transform: Replaces the default evaluation transform.
        seed: Seed of order and augmentation.
        drop_last: Leave out the last training batch when it is not full; ``"auto"`` does so when there is a full one.
        store: Folder made by ``medbolt data prepare``; the images themselves are not needed then.

    Raises:
        ValueError: for another source, or if ``class_names`` does not name every class once.
        UserError: naming the file, row or label that cannot be used; for a file of pickled arrays, with the remedy.

    Source: MONICA, arXiv 2410.02010, and its public configurations.

    Example:
        >>> data = MonicaSplit("isic_100.csv", "isic", root="ISIC_2019_Training_Input")
        >>> data.class_groups
        ClassGroups(head=(0, 1), medium=(2, 3, 4), tail=(5, 6, 7))
        >>> data.class_counts  # doctest: +SKIP
        [5000, 2590, 1342, 695, 360, 187, 97, 51]
    """

    def __init__(
        self,
        manifest: Path | str,
        source: Source,
        root: Path | str | None = None,
        class_names: list[str] | None = None,
        batch_size: int = 32,
        num_workers: int = 0,
        image_size: int | None = 224,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        seed: int = 0,
        drop_last: bool | Literal["auto"] = "auto",
        store: Path | str | None = None,
    ) -> None:
        if source not in BOUNDS:
            raise ValueError(f"source must be one of {sorted(BOUNDS)}, got {source!r}")
        numbers = [str(c) for c in range(BOUNDS[source][2])]
        if class_names is not None and len(class_names) != len(numbers):
            raise ValueError(f"{source} has {len(numbers)} classes, got {len(class_names)} class_names")
        if Path(manifest).suffix in (".npy", ".npz", ".pkl"):
            raise UserError(
                f"{manifest} may hold pickled Python objects, which could run code when loaded; convert MONICA's files "
                "once with medbolt.longtail.convert_monica and give the CSV file that it writes."
            )
        super().__init__(
            manifest,
            "path",
            "label",
            root,
            class_names or numbers,
            split="split",
            batch_size=batch_size,
            num_workers=num_workers,
            image_size=image_size,
            train_transform=train_transform,
            eval_transform=eval_transform,
            seed=seed,
            drop_last=drop_last,
            store=store,
        )
        self.source: Source = source

    @property
    def class_groups(self) -> ClassGroups:
        """Head, medium and tail classes, as MONICA groups them."""
        head, medium, classes = BOUNDS[self.source]
        return ClassGroups.by_index(classes, head, medium)

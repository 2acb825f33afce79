"""The embedded data set as a data module: nothing to download, everything known."""

from functools import cached_property
from pathlib import Path
from typing import Literal

from torch import Tensor, nn

from medbolt.core.data.base import ImageDataModule, Split
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.splits import SPLITS
from medbolt.core.errors import UserError
from medbolt.core.synthetic.fundus import SyntheticFundus


class SyntheticFundusDataModule(ImageDataModule):
    """Draw fundus photographs with diabetic retinopathy as they are asked for.

    Besides image and grade a sample has its camera (``domain``), patient (``group``), report sentence (``text``) and,
    with ``masks``, its lesions (``mask``) and the raters' outlines of the optic disc (``raters``). The splits have
    different patients, and the same eyes whatever the image size and the cameras. A sample's ``id`` names all that its
    picture depends on apart from its size, so that a store made of it fits no other picture. See
    :class:`~medbolt.core.synthetic.fundus.SyntheticFundus`.

    Args:
        num_train: Number of training samples.
        num_val: Number of validation samples.
        num_test: Number of test samples.
        image_size: Height and width drawn, 32 to 512, and of the default transforms.
        train_domains: Numbers of the cameras of training and validation samples; all by default.
        test_domains: Numbers of the cameras of test samples; all by default.
        prevalence: Relative frequency of the grades 0 to 4; a moderate long tail by default.
        num_raters: Number of raters.
        masks: Yield lesion masks and raters' outlines too.
        batch_size: Samples a batch and a process.
        num_workers: Loading processes; 0 loads in the training process.
        train_transform: Replaces the default training transform.
        eval_transform: Replaces the default evaluation transform.
        seed: Seed of the pictures, of order and of augmentation.
        drop_last: Leave out the last training batch when it is not full; ``"auto"`` does so when there is a full one.
        store: Folder made by ``medbolt data prepare``.

    Raises:
        UserError: if a number is out of its range; that of pictures when they are first asked for.

    Example:
        >>> data = SyntheticFundusDataModule(40, 8, 8, train_domains=[0, 1], test_domains=[2])
        >>> data.train_size, data.num_classes, data.domain_names
        (40, 5, ['tabletop', 'film', 'handheld', 'scanning laser'])
        >>> sample = data.dataset("test")[0]
        >>> int(sample["domain"]), sample["id"]
        (2, 'fundus-seed0-000048-camera2-grade...')
    """

    def __init__(
        self,
        num_train: int = 800,
        num_val: int = 200,
        num_test: int = 400,
        image_size: int = 64,
        train_domains: list[int] | None = None,
        test_domains: list[int] | None = None,
        prevalence: list[float] | None = None,
        num_raters: int = 4,
        masks: bool = True,
        batch_size: int = 32,
        num_workers: int = 0,
        train_transform: nn.Module | None = None,
        eval_transform: nn.Module | None = None,
        seed: int = 0,
        drop_last: bool | Literal["auto"] = "auto",
        store: Path | str | None = None,
    ) -> None:
        super().__init__(batch_size, num_workers, image_size, train_transform, eval_transform, seed, drop_last, store)
        if num_train < 1 or min(num_val, num_test) < 0:
            raise UserError(
                "num_train must be at least 1, num_val and num_test not negative, got "
                f"{num_train}, {num_val} and {num_test}."
            )
        self.sizes: dict[Split, int] = {"train": num_train, "val": num_val, "test": num_test}
        self.cameras: dict[Split, list[int] | None] = {
            "train": train_domains,
            "val": train_domains,
            "test": test_domains,
        }
        self.drawn_size, self.prevalence, self.num_raters, self.masks = image_size, prevalence, num_raters, masks

    @property
    def class_names(self) -> list[str]:
        """Names of the grades."""
        return list(SyntheticFundus.class_names)

    @property
    def domain_names(self) -> list[str]:
        """Names of the cameras."""
        return list(SyntheticFundus.domain_names)

    def load(self, split: Split) -> ImageDataset:
        """Return a split without transform; no picture is drawn yet."""
        start, size = self._starts[split], self.sizes[split]
        fundus = SyntheticFundus(
            start + size, self.drawn_size, self.seed, self.prevalence, self.cameras[split], self.num_raters
        )
        rows = range(start, start + size)
        drawing = _Drawing(fundus)
        cameras, grades = fundus.domains.tolist(), fundus.targets.tolist()
        return ImageDataset(
            images=_Layer(drawing, "image", rows),
            targets=fundus.targets[start:],
            ids=[f"fundus-seed{self.seed}-{row:06d}-camera{cameras[row]}-grade{grades[row]}" for row in rows],
            groups=fundus.groups[start:],
            domains=fundus.domains[start:],
            texts=[fundus.report(row) for row in rows],
            layers={key: _Layer(drawing, key, rows) for key in ("mask", "raters")} if self.masks else {},
        )

    @cached_property
    def _starts(self) -> dict[Split, int]:
        starts: dict[Split, int] = {}
        start = 0
        for split in SPLITS:
            starts[split] = start
            start += self.sizes[split] + self.sizes[split] % 2  # a patient has two neighbouring images
        return starts


class _Drawing:
    """Draws a sample once for its image and its layers, which are asked for one after another."""

    def __init__(self, fundus: SyntheticFundus) -> None:
        self.fundus = fundus
        self._row, self._sample = -1, dict[str, Tensor]()

    def sample(self, row: int) -> dict[str, Tensor]:
        if row != self._row:
            self._sample, self._row = self.fundus[row], row
        return self._sample


class _Layer:
    """One picture of each sample."""

    def __init__(self, drawing: _Drawing, key: str, rows: range) -> None:
        self.drawing, self.key, self.rows = drawing, key, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, row: int) -> Tensor:
        return self.drawing.sample(self.rows[row])[self.key].clone()

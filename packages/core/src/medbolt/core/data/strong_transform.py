"""A second, stronger view of a training image, for methods that ask two views to agree."""

from collections.abc import Sequence
from typing import Literal

from torch import nn
from torchvision.transforms import v2

from medbolt.core.data.transforms import IMAGENET_MEAN, IMAGENET_STD, TrainingTransform


class StrongTransform(v2.Compose):
    """Change colour and sharpness strongly, then do as :class:`TrainingTransform`, then erase a small square.

    ``operations`` times one of contrast, brightness, saturation, sharpness, autocontrast, equalization, posterization
    or solarization is chosen and applied with probability 1/2: RandAugment (arXiv 1909.13719) restricted to what leaves
    shapes where they are, as DISC uses it. Hue stays, for it is a diagnostic sign.

    Args:
        image_size: Height and width in pixels; ``None`` keeps the size and crops nothing.
        operations: Number of colour operations in a row.
        strength: In [0, 1]: the largest relative change of contrast, brightness and saturation; sharpness,
            posterization and solarization follow it.
        erased: Side of the erased square, as a share of the image's side; 0 erases nothing.
        crop_scale: Range of the share of the image's area that a random crop keeps.
        flips: Axes along which the image is mirrored, each with probability 1/2.
        rotation: Largest rotation either way, in degrees.
        mean: Per-channel mean subtracted, of values in [0, 1].
        std: Per-channel divisor.

    Shapes:
        image (3, H, W) uint8 to (3, image_size, image_size) float32.

    Raises:
        ValueError: if ``strength`` or ``erased`` is outside [0, 1].

    Example:
        >>> import torch
        >>> StrongTransform(32)(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        image_size: int | None = 224,
        operations: int = 2,
        strength: float = 0.5,
        erased: float = 0.15,
        crop_scale: tuple[float, float] = (0.8, 1.0),
        flips: Literal["none", "horizontal", "vertical", "both"] = "horizontal",
        rotation: float = 15.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        if not (0 <= strength <= 1 and 0 <= erased <= 1):
            raise ValueError(f"strength and erased must be in [0, 1], got {strength} and {erased}")
        still = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
        whole = TrainingTransform(image_size, crop_scale, flips, rotation, mean=mean, std=std, **still)  # pyright: ignore[reportArgumentType]
        super().__init__(_around(whole, operations, strength, erased))


def strengthened(transform: nn.Module) -> v2.Compose:
    """Return a transform with the colour operations of :class:`StrongTransform` before it and the erasing after it.

    Args:
        transform: Makes float images of uint8 ones.

    Example:
        >>> from medbolt.core import EvaluationTransform
        >>> strengthened(EvaluationTransform(32))(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """
    return v2.Compose(_around(transform, operations=2, strength=0.5, erased=0.15))


def _around(transform: nn.Module, operations: int, strength: float, erased: float) -> list[nn.Module]:
    # every operation has a chance of 1/2, itself or by its own ``p``
    colours = v2.RandomChoice(
        [
            v2.RandomApply([v2.ColorJitter(contrast=strength)]),
            v2.RandomApply([v2.ColorJitter(brightness=strength)]),
            v2.RandomApply([v2.ColorJitter(saturation=strength)]),
            v2.RandomAdjustSharpness(1 + 2 * strength),
            v2.RandomAutocontrast(),
            v2.RandomEqualize(),
            v2.RandomPosterize(8 - round(4 * strength)),
            v2.RandomSolarize(256 - 128 * strength),
        ]
    )
    steps: list[nn.Module] = [*[colours] * operations, transform]
    if erased:
        steps.append(v2.RandomErasing(p=1.0, scale=(erased**2, erased**2), ratio=(1.0, 1.0)))
    return steps

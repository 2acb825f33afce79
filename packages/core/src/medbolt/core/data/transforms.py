"""Transforms that suit medical images: mild by default, on torchvision's v2 API, configurable from YAML."""

from collections.abc import Sequence
from typing import Literal

import torch
from torchvision.transforms import v2

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
Flips = Literal["none", "horizontal", "vertical", "both"]


def _finish(mean: Sequence[float], std: Sequence[float]) -> list[v2.Transform]:
    return [v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))]


class EvaluationTransform(v2.Compose):
    """Resize to a square, scale to [0, 1] and normalise.

    Args:
        image_size: Height and width in pixels; ``None`` keeps the size.
        mean: Per-channel mean subtracted, of values in [0, 1]; ImageNet's, which most pre-trained networks expect.
        std: Per-channel divisor.

    Shapes:
        image (3, H, W) uint8 to (3, image_size, image_size) float32; masks are resized by nearest neighbour.

    Example:
        >>> EvaluationTransform(32)(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([3, 32, 32])
    """

    def __init__(
        self,
        image_size: int | None = 224,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        resize = [] if image_size is None else [v2.Resize((image_size, image_size), antialias=True)]
        super().__init__([*resize, *_finish(mean, std)])


class TrainingTransform(v2.Compose):
    """Crop, flip, rotate and recolour mildly, then do as :class:`EvaluationTransform`.

    What is safe depends on the modality: dermoscopy has no upright, so any rotation and both flips are; a radiograph
    must not be flipped left to right where the side matters; hue is a diagnostic sign in fundus and skin images.
    :class:`~medbolt.core.MedMNISTDataModule` and the YAML layers in ``lightning_configs/data`` choose per data set.

    Args:
        image_size: Height and width in pixels; ``None`` keeps the size and crops nothing.
        crop_scale: Range of the share of the image's area that a random crop keeps; (1, 1) only resizes.
        flips: Axes along which the image is mirrored, each with probability 1/2.
        rotation: Largest rotation either way, in degrees.
        brightness: Largest relative change of brightness.
        contrast: Largest relative change of contrast.
        saturation: Largest relative change of saturation.
        hue: Largest shift of hue, as a share of the circle (0 to 0.5).
        mean: Per-channel mean subtracted, of values in [0, 1].
        std: Per-channel divisor.

    Shapes:
        image (3, H, W) uint8 to (3, image_size, image_size) float32.

    Raises:
        ValueError: if ``flips`` is another word.

    Example:
        >>> TrainingTransform(32)(torch.zeros(3, 40, 60, dtype=torch.uint8)).dtype
        torch.float32
    """

    def __init__(
        self,
        image_size: int | None = 224,
        crop_scale: tuple[float, float] = (0.8, 1.0),
        flips: Flips = "horizontal",
        rotation: float = 15.0,
        brightness: float = 0.1,
        contrast: float = 0.1,
        saturation: float = 0.1,
        hue: float = 0.0,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
    ) -> None:
        if flips not in ("none", "horizontal", "vertical", "both"):
            raise ValueError(f"flips must be 'none', 'horizontal', 'vertical' or 'both', got {flips!r}")
        steps: list[v2.Transform] = []
        if image_size is not None and tuple(crop_scale) != (1.0, 1.0):
            steps.append(v2.RandomResizedCrop((image_size, image_size), crop_scale, ratio=(0.9, 1.1), antialias=True))
        elif image_size is not None:
            steps.append(v2.Resize((image_size, image_size), antialias=True))
        if flips in ("horizontal", "both"):
            steps.append(v2.RandomHorizontalFlip())
        if flips in ("vertical", "both"):
            steps.append(v2.RandomVerticalFlip())
        if rotation:
            steps.append(v2.RandomRotation([-rotation, rotation], interpolation=v2.InterpolationMode.BILINEAR))
        if brightness or contrast or saturation or hue:
            steps.append(v2.ColorJitter(brightness, contrast, saturation, hue))
        super().__init__([*steps, *_finish(mean, std)])

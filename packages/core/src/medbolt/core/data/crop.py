"""The camera's field of view in a fundus photograph, and the square around it."""

from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional as F

_LONG_SIDE = 256  # pixels of the reduced image in which the circle is sought
_TOLERANCES = (0.2, 0.1, 0.05, 0.02, 0.02)  # how far from the circle outline counts in the next fit, in radii


class Circle(NamedTuple):
    """A circle in pixels; (x, y) is its centre, with (0, 0) at the corner of the first pixel."""

    x: float
    y: float
    radius: float


def field_of_view(image: Tensor) -> Circle:
    """Find the bright disc that a fundus camera draws on black, also where the frame cuts it off.

    The largest connected region brighter than a tenth of the image's bright level (95th percentile, any channel) is
    taken, its gaps filled, and a circle fitted to the part of its outline away from the frame, again and again without
    what lies off the circle: labels, notches and dark crescents. Where that is no circle that agrees with the region,
    or the region fills the frame, the circle around the region's bounding box is returned.

    Args:
        image: (3, H, W) uint8.

    Returns:
        The circle; that of the whole frame when there is nothing bright.

    Example:
        >>> y, x = torch.meshgrid(torch.arange(90), torch.arange(120), indexing="ij")
        >>> disc = ((x + 0.5 - 60) ** 2 + (y + 0.5 - 50) ** 2 < 35**2).to(torch.uint8) * 200
        >>> [round(value) for value in field_of_view(disc.expand(3, -1, -1))]
        [60, 50, 35]
    """
    height, width = image.shape[-2:]
    scale = min(1.0, _LONG_SIDE / max(height, width))
    small = (max(1, round(height * scale)), max(1, round(width * scale)))
    bright = F.resize(tv_tensors.Image(image), list(small), antialias=True).as_subclass(Tensor).amax(0).numpy()
    region = _largest_region(bright > max(8.0, 0.1 * float(np.percentile(bright, 95))))
    if region is None:
        return Circle(width / 2, height / 2, max(height, width) / 2)
    circle = _fit(region) or _around(region)
    return Circle(circle.x * width / small[1], circle.y * height / small[0], circle.radius * width / small[1])


def crop_square(picture: Tensor, circle: Circle) -> Tensor:
    """Cut out the square around a circle, filled up with zeros beyond the frame.

    Args:
        picture: (..., H, W) ``tv_tensors.Image`` or ``Mask``.
        circle: The circle, from :func:`field_of_view`.

    Returns:
        (..., S, S) with S the circle's diameter, rounded.

    Example:
        >>> crop_square(tv_tensors.Image(torch.zeros(3, 90, 120)), Circle(60.0, 40.0, 50.0)).shape
        torch.Size([3, 100, 100])
    """
    side = max(1, round(2 * circle.radius))
    return F.crop(picture, round(circle.y - side / 2), round(circle.x - side / 2), side, side)


class CropFieldOfView(nn.Module):
    """Cut every picture to the square around its field of view, masks with the same geometry.

    A transform of :mod:`torchvision.transforms.v2`, for dicts of ``tv_tensors`` with an ``image``.

    Example:
        >>> sample = {"image": tv_tensors.Image(torch.full((3, 40, 60), 9, dtype=torch.uint8))}
        >>> CropFieldOfView()(sample)["image"].shape
        torch.Size([3, 60, 60])
    """

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return the sample with its image and masks cropped."""
        circle = field_of_view(sample["image"])
        return {
            key: crop_square(value, circle) if isinstance(value, tv_tensors.Image | tv_tensors.Mask) else value
            for key, value in sample.items()
        }


def _largest_region(bright: np.ndarray) -> np.ndarray | None:
    labels, count = ndimage.label(bright)  # pyright: ignore[reportGeneralTypeIssues]
    if count == 0:
        return None
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return ndimage.binary_fill_holes(labels == sizes.argmax())


def _around(region: np.ndarray) -> Circle:
    rows, columns = np.flatnonzero(region.any(1)), np.flatnonzero(region.any(0))
    top, bottom, left, right = int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1
    return Circle((left + right) / 2, (top + bottom) / 2, max(bottom - top, right - left) / 2)


def _fit(region: np.ndarray) -> Circle | None:
    padded = np.pad(region, 1, mode="edge")  # the frame is no outline
    rows, columns = np.nonzero(region & (ndimage.binary_erosion(padded)[1:-1, 1:-1] == 0))
    if len(rows) < 0.1 * sum(region.shape):
        return None
    x, y = columns + 0.5, rows + 0.5
    circle, near = _least_squares(x, y), np.ones(len(x), dtype=bool)
    for tolerance in _TOLERANCES:
        near = np.abs(np.hypot(x - circle.x, y - circle.y) - circle.radius) < max(1.0, tolerance * circle.radius)
        if near.sum() < 0.5 * len(x):
            return None
        circle = _least_squares(x[near], y[near])
    circle = circle._replace(radius=circle.radius + 0.5)  # the outline is half a pixel inside
    y, x = np.indices(region.shape) + 0.5
    disc = np.hypot(x - circle.x, y - circle.y) < circle.radius
    agrees = (disc & region).sum() > 0.9 * (disc | region).sum()
    return circle if agrees and circle.radius < 1.5 * _around(region).radius else None


def _least_squares(x: np.ndarray, y: np.ndarray) -> Circle:
    """Fit a circle to points by linear least squares (Kasa, doi 10.1109/TIM.1976.6312298)."""
    design = np.column_stack([x, y, np.ones_like(x)])
    a, b, c = np.linalg.lstsq(design, x**2 + y**2, rcond=None)[0].tolist()
    return Circle(a / 2, b / 2, max(c + a**2 / 4 + b**2 / 4, 0.0) ** 0.5)

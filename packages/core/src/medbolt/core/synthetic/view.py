"""From retina coordinates to the pixels of one image, and back."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.anatomy import Anatomy


@dataclass(frozen=True)
class View:
    """A similarity that maps retina coordinates to pixel coordinates (x, y).

    Pixel (row, column) is centred at (column + 0.5, row + 0.5).
    """

    size: int
    """Pixels a side of the image."""
    extent: float
    """Radius of the retina's unit disc in the image, relative to half its side."""
    matrix: NDArray[np.float64]
    """(2, 2)"""
    offset: NDArray[np.float64]
    """(2,)"""

    @property
    def scale(self) -> float:
        """Pixels for a unit of the retina."""
        return float(np.hypot(*self.matrix[0]))

    def pixels(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 2) retina points to pixel coordinates."""
        return points @ self.matrix.T + self.offset

    def retina(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Map (..., 2) pixel coordinates to retina points."""
        return (points - self.offset) @ np.linalg.inv(self.matrix).T

    def retina_grid(self, rows: slice, columns: slice) -> NDArray[np.float64]:
        """Return the (H, W, 2) retina points at the centres of a window's pixels."""
        y, x = np.mgrid[rows, columns] + 0.5
        return self.retina(np.stack([x, y], axis=-1))


def view_of(anatomy: Anatomy, size: int, extent: float) -> View:
    """Return how a camera sees an eye.

    Args:
        anatomy: The eye: side, rotation, shift and scale.
        size: Pixels a side of the image.
        extent: Radius of the retina's unit disc in the image, relative to half its side.
    """
    mirror = np.diag([1.0 if anatomy.right else -1.0, 1.0])
    cos, sin = np.cos(anatomy.rotation), np.sin(anatomy.rotation)
    matrix = size / 2 * extent * anatomy.scale * np.array([[cos, -sin], [sin, cos]]) @ mirror
    return View(size, extent, matrix, size / 2 + matrix @ anatomy.shift)

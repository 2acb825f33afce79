"""Paint the retina as an ideal camera would see it."""

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import BSpline

from medbolt.core.synthetic.anatomy import TEXTURE_GRIDS, Anatomy
from medbolt.core.synthetic.outlines import DiscGrid
from medbolt.core.synthetic.scene import Scene
from medbolt.core.synthetic.view import View

POPULATIONS = ("light", "medium", "dark")
"""Pigmentation of the fundus."""

_PIGMENT = np.array([(0.85, 0.44, 0.25), (0.76, 0.35, 0.17), (0.55, 0.25, 0.14)], np.float32)
_DISC, _TEMPORAL_RIM, _CUP = (
    np.array(c, np.float32) for c in ((0.97, 0.70, 0.40), (1.0, 0.82, 0.52), (1.0, 0.95, 0.76))
)
_HARD_EXUDATE, _SOFT_EXUDATE = (np.array(c, np.float32) for c in ((1.0, 0.90, 0.42), (0.96, 0.90, 0.78)))
_PRERETINAL = np.array([0.36, 0.03, 0.03], np.float32)

# Share of red, green and blue light that blood takes away.
_BLOOD = np.array([0.30, 0.64, 0.60], np.float32)
_MICROANEURYSM, _HAEMORRHAGE = (np.array(c, np.float32) for c in ((0.34, 0.74, 0.68), (0.46, 0.80, 0.72)))
_NEW_VESSEL = np.array([0.25, 0.75, 0.70], np.float32)

_TEXTURE_STRENGTH = (0.06, 0.05, 0.04)
_DEPTH = (0.75, 1.3, 1.3)  # shading of red, green and blue: red light comes from deeper layers and shows less of it


@lru_cache(maxsize=64)
def _spline_weights(size: int, extent: float, knots: int) -> NDArray[np.float32]:
    """Return (size, knots) weights of the cubic spline that spreads a row of knots over the retina's -1.5 to 1.5."""
    position = ((np.arange(size) + 0.5) / size * 2 - 1) / extent
    margin = 9 / (knots - 3)
    breaks = np.linspace(-1.5 - margin, 1.5 + margin, knots + 4)
    return BSpline.design_matrix(np.clip(position, -1.5, 1.5), breaks, 3).toarray().astype(np.float32)


def _texture(anatomy: Anatomy, view: View) -> NDArray[np.float32]:
    field = np.zeros((view.size, view.size), np.float32)
    for grid, knots, strength in zip(anatomy.texture, TEXTURE_GRIDS, _TEXTURE_STRENGTH, strict=True):
        weights = _spline_weights(view.size, view.extent, knots)
        field += weights @ (np.float32(strength) * grid) @ weights.T
    return field


def _glow(centre: NDArray[np.float64], spread: float, view: View) -> NDArray[np.float32]:
    """Return an (H, W) Gaussian bump of height 1 about a retina point."""
    x, y = view.pixels(centre)
    pixel = np.arange(view.size) + 0.5
    across, down = (np.exp(-0.5 * ((pixel - at) / (spread * view.scale)) ** 2).astype(np.float32) for at in (x, y))
    return down[:, None] * across


def _blend(image: NDArray[np.float32], colour: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
    """Cover the (3, H, W) image with an opaque colour, in place."""
    for channel, value in zip(image, colour, strict=True):
        channel += alpha * (value - channel)


def _absorb(image: NDArray[np.float32], share: NDArray[np.float32], alpha: NDArray[np.float32]) -> None:
    """Take a share of the light away, in place."""
    for channel, value in zip(image, share, strict=True):
        channel *= 1 - value * alpha


def _paint_disc(image: NDArray[np.float32], anatomy: Anatomy, grid: DiscGrid, scale: float) -> None:
    disc, cup = grid.radii(anatomy.disc_outline[None], anatomy.cup_outline[None])
    patch = image[:, *grid.window]
    edge = 0.02 + 0.5 / scale
    alpha = np.clip(0.5 + (disc[0] - grid.distance) / edge, 0, 1).astype(np.float32)
    temporal = (0.5 - 0.5 * grid.powers[1].real).astype(np.float32)
    for channel, nasal_colour, temporal_colour in zip(patch, _DISC, _TEMPORAL_RIM, strict=True):
        channel += alpha * (nasal_colour + temporal * (temporal_colour - nasal_colour) - channel)
    slope = np.clip(0.5 + (cup[0] - grid.distance) / (2 * edge), 0, 1).astype(np.float32)
    _blend(patch, _CUP, slope)


def paint(scene: Scene, population: int) -> NDArray[np.float32]:
    """Paint an eye.

    Args:
        scene: What is drawn.
        population: Index into :data:`POPULATIONS`.

    Returns:
        (3, H, W) float32 in about [0, 1], red, green and blue.
    """
    anatomy, view = scene.anatomy, scene.view
    shading = _texture(anatomy, view)
    shading -= np.float32(anatomy.macula) * _glow(anatomy.fovea, 0.22, view)
    shading -= 0.16 * _glow(anatomy.fovea, 0.06, view)
    shading += 0.10 * _glow(anatomy.disc, 0.4, view)
    pigment = _PIGMENT[population] * np.float32(1 - 0.1 * anatomy.shade)
    image = np.stack([value + (value * depth) * shading for value, depth in zip(pigment, _DEPTH, strict=True)])
    _paint_disc(image, anatomy, scene.grid, view.scale)
    microaneurysms, haemorrhages, hard_exudates, soft_exudates, new_vessels, preretinal = scene.lesions
    _absorb(image, _HAEMORRHAGE, haemorrhages)
    _blend(image, _HARD_EXUDATE, 0.9 * hard_exudates)
    _absorb(image, _BLOOD, scene.vessels)
    _absorb(image, _MICROANEURYSM, microaneurysms)
    _blend(image, _SOFT_EXUDATE, 0.8 * soft_exudates)
    _absorb(image, _NEW_VESSEL, new_vessels)
    _blend(image, _PRERETINAL, 0.95 * preretinal)
    return image

"""Optic disc and cup as closed curves around the centre of the disc, the true ones and the raters'."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.anatomy import HARMONICS, Anatomy
from medbolt.core.synthetic.view import View

_CUP_LIMIT = 0.92  # of the disc's radius in the same direction: the cup never crosses the rim
_GENERALISED_GOLDEN_RATIO = 1.1673039782614187  # root of x^5 = x + 1, spreads rater styles evenly in 4 dimensions


@dataclass(frozen=True)
class RaterStyle:
    """How a rater draws, in every image the same."""

    disc_bias: float
    """Relative error of the disc's radius, -0.08 to 0.08."""
    cup_bias: float
    """Relative error of the cup's radius, -0.3 to 0.3."""
    roughness: float
    """Height of the line's waves, 0.005 to 0.04 of the disc's radius."""
    unsteadiness: float
    """Largest relative error of the radii on top of the bias, new in each image, 0.02 to 0.08."""


def rater_style(rater: int) -> RaterStyle:
    """Return the style of rater 0, 1, ...: the same person in every data set, however many raters it has.

    Example:
        >>> rater_style(1).cup_bias > 0 > rater_style(0).cup_bias  # rater 1 draws large cups, rater 0 small ones
        True
    """
    u = ((0.5 + (rater + 1) * _GENERALISED_GOLDEN_RATIO ** -np.arange(1.0, 5.0)) % 1).tolist()
    return RaterStyle(0.16 * u[0] - 0.08, 0.6 * u[1] - 0.3, 0.005 + 0.035 * u[2], 0.02 + 0.06 * u[3])


def rater_outlines(
    anatomy: Anatomy, raters: int, rng: np.random.Generator
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    """Draw what each rater takes for disc and cup, as (R, K) Fourier coefficients of their radii."""
    discs, cups = [], []
    order = np.arange(HARMONICS)
    fades = np.where(order < 2, 0, 1.5 / np.maximum(order, 1))  # waves only, the fine ones lower
    for style in map(rater_style, range(raters)):
        for outline, bias, drawn in (
            (anatomy.disc_outline, style.disc_bias, discs),
            (anatomy.cup_outline, style.cup_bias, cups),
        ):
            u = rng.random((3, HARMONICS))
            waves = style.roughness * np.abs(anatomy.disc_outline[0]) * fades * u[0] * np.exp(2j * np.pi * u[1])
            size = 1 + bias + style.unsteadiness * (2 * u[2, 0] - 1)
            drawn.append(outline * size + waves)
    return np.stack(discs), np.stack(cups)


@dataclass(frozen=True)
class DiscGrid:
    """The pixels about the optic disc in polar coordinates about its centre."""

    window: tuple[slice, slice]
    """Rows and columns, wide enough for the disc whoever draws it."""
    distance: NDArray[np.float64]
    """(H, W) in retina units."""
    powers: NDArray[np.complex128]
    """(K, H, W): exp(i k t) of the angle t."""

    def radii(
        self, discs: NDArray[np.complex128], cups: NDArray[np.complex128]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the (R, H, W) radii of (R, K) discs and cups in each pixel's direction; no cup leaves its disc."""
        disc, cup = (np.tensordot(outlines, self.powers, axes=1).real for outlines in (discs, cups))
        return disc, np.minimum(cup, _CUP_LIMIT * disc)


def disc_grid(anatomy: Anatomy, view: View) -> DiscGrid:
    """Return the polar grid about an eye's disc."""
    column, row = view.pixels(anatomy.disc)
    reach = 1.5 * abs(anatomy.disc_outline[0]) * view.scale + 2
    rows, columns = (slice(max(0, int(at - reach)), min(view.size, int(at + reach) + 1)) for at in (row, column))
    x, y = np.moveaxis(view.retina_grid(rows, columns) - anatomy.disc, -1, 0)
    distance = np.hypot(x, y)
    turn = (x + 1j * y) / np.maximum(distance, 1e-9)
    powers = np.ones((HARMONICS, *turn.shape), np.complex128)
    for k in range(1, HARMONICS):
        np.multiply(powers[k - 1], turn, out=powers[k])
    return DiscGrid((rows, columns), distance, powers)


def draw_outlines(
    discs: NDArray[np.complex128], cups: NDArray[np.complex128], grid: DiscGrid, size: int
) -> NDArray[np.uint8]:
    """Draw discs and cups as masks.

    Args:
        discs: (R, K) Fourier coefficients of the radii.
        cups: (R, K) the same.
        grid: The pixels about the disc.
        size: Pixels a side of the image.

    Returns:
        (R, H, W) uint8: 0 background, 1 rim of the disc, 2 cup.
    """
    disc, cup = grid.radii(discs, cups)
    masks = np.zeros((len(discs), size, size), np.uint8)
    masks[:, *grid.window] = (grid.distance < disc).astype(np.uint8) + (grid.distance < cup)
    return masks

"""The shape of one eye: where disc, cup and fovea lie, and how the eye is held before the camera.

Everything is in retina coordinates, the same for every image size and camera: a right eye seen by the observer, the
field of view of a 45 degree photograph is the unit disc, x points nasally (to the right), y inferiorly (down). A left
eye is its mirror image.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.counter import Stream, generator
from medbolt.core.synthetic.labels import patient

DISC = np.array([0.54, -0.02])
"""Where the optic disc lies on average; single eyes differ by :data:`SPREAD`."""
FOVEA = np.array([-0.16, 0.04])
SPREAD = 0.02
HARMONICS = 9
"""Terms of an outline's Fourier series, the constant included."""
TEXTURE_GRIDS = (7, 19, 53)
"""Knots a side of the random fields that mottle the retina, coarse to fine."""


@dataclass(frozen=True)
class Anatomy:
    """One eye before any lesion, in retina coordinates."""

    right: bool
    disc: NDArray[np.float64]
    """(2,) centre."""
    fovea: NDArray[np.float64]
    """(2,)"""
    disc_outline: NDArray[np.complex128]
    """(K,) Fourier coefficients of the disc's radius about its centre: r(t) = Re sum c_k exp(i k t)."""
    cup_outline: NDArray[np.complex128]
    """(K,) the same of the cup, about the centre of the disc too."""
    rotation: float
    """Radians."""
    shift: NDArray[np.float64]
    """(2,)"""
    scale: float
    tortuosity: float
    """0 to 1, how much the vessels wind."""
    arcade: float
    """Height of the temporal vessel arcades, relative to the average."""
    calibre: float
    """Width of the vessels, relative to the average."""
    shade: float
    """-1 to 1, pigmentation within the population."""
    macula: float
    """How much darker the macula is."""
    texture: tuple[NDArray[np.float32], ...]
    """Random fields of :data:`TEXTURE_GRIDS` knots a side."""


def _outline(mean: float, tall: float, shift: float, u: NDArray[np.float64]) -> NDArray[np.complex128]:
    """Return the Fourier coefficients of an upright oval of a mean radius, moved temporally, a little irregular."""
    outline = np.zeros(HARMONICS, np.complex128)
    outline[0] = mean
    outline[1] = -shift * mean
    outline[2] = -tall * mean
    wobble = np.array([0.03, 0.02, 0.012])
    outline[2:5] += mean * wobble * u[:3] * np.exp(2j * np.pi * u[3:6])
    return outline


def draw_anatomy(seed: int, index: int) -> Anatomy:
    """Draw the eye of a sample: three quarters of its style is the patient's, the rest its own."""
    own = generator(seed, Stream.EYE, index)
    patients = generator(seed, Stream.PATIENT, int(patient(np.array(index))))
    style = 0.75 * patients.random(24) + 0.25 * own.random(24)
    radius = 0.155 + 0.03 * style[0]
    cup = radius * (0.25 + 0.45 * style[1])
    return Anatomy(
        right=index % 2 == 0,
        disc=DISC + SPREAD * (2 * own.random(2) - 1),
        fovea=FOVEA + SPREAD * (2 * own.random(2) - 1),
        disc_outline=_outline(radius, 0.02 + 0.05 * style[2], 0.0, style[3:9]),
        cup_outline=_outline(cup, 0.05 * style[9], 0.1 + 0.1 * style[10], style[11:17]),
        rotation=np.deg2rad(6) * (2 * own.random() - 1),
        shift=0.03 * (2 * own.random(2) - 1),
        scale=1 + 0.03 * (2 * own.random() - 1),
        tortuosity=style[17],
        arcade=0.9 + 0.2 * style[18],
        calibre=0.85 + 0.3 * style[19],
        shade=2 * style[20] - 1,
        macula=0.15 + 0.2 * style[21],
        texture=tuple(own.standard_normal((knots, knots), dtype=np.float32) for knots in TEXTURE_GRIDS),
    )

"""The camera domains: what a camera makes of an ideal picture of the retina."""

from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import gaussian_filter1d

_NEUTRAL = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


@dataclass(frozen=True)
class Camera:
    """One acquisition domain. Lengths are relative to half the image's side unless another unit is given."""

    name: str
    populations: tuple[float, float, float]
    """Mix of light, medium and dark fundi where the camera stands, sums to 1."""
    field: float = 0.96
    """Radius of the round field of view."""
    cut: float = 2.0
    """Height at which the field is cut off above and below."""
    extent: float = 0.96
    """Radius of the retina's unit disc."""
    matrix: tuple[tuple[float, float, float], ...] = _NEUTRAL
    """Colour response: output red, green and blue (rows) from those of the retina (columns)."""
    exposure: float = 1.0
    gamma: float = 1.0
    vignette: float = 0.25
    """Share of light lost at the rim."""
    gradient: float = 0.05
    """Share of light that one side gains and the other loses."""
    blur: float = 0.0
    """Standard deviation of the point spread."""
    haze: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Stray light."""
    contrast: float = 1.0
    """Of the retina under the stray light."""
    reflex: float = 0.0
    """Brightness of the crescent that the pupil's edge reflects."""
    noise: float = 0.012
    """Standard deviation a pixel, of full scale 1; evenly distributed."""
    quality: int | None = None
    """Of the JPEG compression, none if None."""


CAMERAS = (
    Camera("tabletop", (0.5, 0.35, 0.15)),
    Camera(
        "film",
        (0.15, 0.7, 0.15),
        cut=0.84,
        matrix=((0.98, 0.05, 0.0), (0.18, 0.50, 0.0), (0.22, 0.10, 0.62)),
        gamma=1.45,
        vignette=0.55,
        blur=0.006,
        noise=0.035,
    ),
    Camera(
        "handheld",
        (0.2, 0.3, 0.5),
        field=0.84,
        extent=0.84,
        matrix=((0.75, 0.08, 0.05), (0.17, 0.76, 0.05), (0.10, 0.20, 0.65)),
        vignette=0.4,
        gradient=0.35,
        blur=0.011,
        haze=(0.022, 0.025, 0.028),
        contrast=0.93,
        reflex=0.35,
        noise=0.03,
    ),
    Camera(
        "scanning laser",
        (0.35, 0.35, 0.3),
        field=1.18,
        extent=0.80,
        matrix=((0.50, 0.15, 0.0), (0.0, 1.30, 0.0), (0.05, 0.15, 0.05)),
        gamma=0.85,
        vignette=0.0,
        noise=0.02,
        quality=35,
    ),
)
"""A reference and three that depart from it in colour, sharpness, field, noise, magnification and population."""


@lru_cache(maxsize=32)
def field_of_view(camera: Camera, size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return how much of each pixel the camera sees, and the light that reaches it: (H, W) in [0, 1], read-only."""
    axis = (np.arange(size) + 0.5) / size * 2 - 1
    distance = np.hypot(axis[:, None], axis)
    rim = np.minimum(camera.field - distance, camera.cut - np.abs(axis)[:, None])
    field = np.clip(0.5 + rim * size / 2, 0, 1).astype(np.float32)
    light = (1 - camera.vignette * np.minimum(distance / camera.field, 1) ** 3).astype(np.float32)
    field.flags.writeable = light.flags.writeable = False
    return field, light


def _reflex(size: int, u: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return (H, W) stray light: a soft crescent along one side of the field."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    angle = 2 * np.pi * u[0]
    across = np.float32(np.cos(angle)) * axis + np.float32(np.sin(angle)) * axis[:, None]
    return np.exp(-(((across - np.float32(0.72 + 0.12 * u[1])) / np.float32(0.16)) ** 2))


def photograph(camera: Camera, retina: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Take a photograph.

    Args:
        camera: The camera.
        retina: (3, H, W) float32 ideal picture; is overwritten.
        rng: The sample's generator: exposure, white balance and illumination vary a little, and the sensor is noisy.

    Returns:
        (3, H, W) uint8, black outside the field of view.
    """
    size = retina.shape[-1]
    u = rng.random(8)
    field, light = field_of_view(camera, size)
    gains = camera.exposure * (0.92 + 0.16 * u[0]) * (1 + 0.06 * (u[1:4] - 0.5))
    response = np.array(camera.matrix) * gains[:, None]
    image = (response.astype(np.float32) @ retina.reshape(3, -1)).reshape(retina.shape)
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size * 2 - 1
    tilt = camera.gradient * np.array([np.cos(2 * np.pi * u[4]), np.sin(2 * np.pi * u[4])], np.float32)
    image *= light * (1 + tilt[0] * axis + tilt[1] * axis[:, None])
    if camera.blur:
        for spatial in (1, 2):
            image = gaussian_filter1d(image, camera.blur * size / 2, axis=spatial, truncate=2.5)
    if camera.contrast < 1:
        image *= camera.contrast
        image += np.array(camera.haze, np.float32)[:, None, None] * (1 + 0.3 * (u[5] - 0.5))
    if camera.reflex:
        image += camera.reflex * _reflex(size, u[6:])
    if camera.gamma != 1:
        image = np.maximum(image, 0) ** np.float32(camera.gamma)
    grain = rng.integers(0, 256, image.shape, dtype=np.uint8)
    image += (grain - np.float32(127.5)) * np.float32(camera.noise * 12**0.5 / 256)
    image *= field
    pixels = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    return pixels if camera.quality is None else _compress(pixels, camera.quality)


def _compress(pixels: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """Return a (3, H, W) picture after a round trip through JPEG."""
    with BytesIO() as file:
        Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(file, "jpeg", quality=quality)
        return np.ascontiguousarray(np.asarray(Image.open(file)).transpose(2, 0, 1))

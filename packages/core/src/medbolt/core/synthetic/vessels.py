"""The vessel tree: arteries and veins that leave the disc in arcades and branch, and tangles of new vessels."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from medbolt.core.synthetic.anatomy import Anatomy
from medbolt.core.synthetic.view import View

_FOVEAL_RADIUS = 0.11  # the avascular zone
_CALIBRE = np.array([0.022, 0.030])  # of an artery and a vein at the disc
_TINT = np.array([0.58, 1.0])  # arterial blood takes less light away
# Control points of the trunks: temporal arcades, nasal arcades, one small vessel each to the macula and to the nose.
_TRUNKS = np.array(
    [
        [(0.03, 0.0), (0.0, -0.4), (0.2, -0.74), (-1.0, -0.4)],
        [(0.03, 0.0), (0.0, 0.4), (0.2, 0.74), (-1.0, 0.4)],
        [(0.03, 0.0), (0.06, -0.22), (0.22, -0.42), (0.75, -1.05)],
        [(0.03, 0.0), (0.06, 0.22), (0.22, 0.42), (0.75, 1.05)],
        [(0.03, 0.0), (-0.12, 0.02), (-0.3, -0.08), (0.16, -0.05)],
        [(0.03, 0.0), (0.12, 0.0), (0.3, 0.03), (0.75, 0.1)],
    ]
)
_ABOUT_FOVEA = np.array([(0, 0, 1, 1), (0, 0, 1, 1), (0, 0, 0, 0), (0, 0, 0, 0), (0, 0, 0, 1), (0, 0, 0, 0)], bool)
_TRUNK_CALIBRE = np.array([1, 1, 0.8, 0.8, 0.4, 0.45])


@dataclass(frozen=True)
class Lines:
    """V vessels, each a centre line of T points in retina coordinates."""

    points: NDArray[np.float64]
    """(V, T, 2)"""
    widths: NDArray[np.float64]
    """(V, T)"""
    tints: NDArray[np.float64]
    """(V,) in (0, 1], how much light they take away."""


def _normals(points: NDArray[np.float64]) -> NDArray[np.float64]:
    along = np.empty_like(points)
    along[:, 1:-1] = points[:, 2:] - points[:, :-2]
    along[:, 0], along[:, -1] = points[:, 1] - points[:, 0], points[:, -1] - points[:, -2]
    along /= np.maximum(np.hypot(along[..., :1], along[..., 1:]), 1e-9)
    return along[..., ::-1] * [-1.0, 1.0]


def _wind(points: NDArray[np.float64], amplitude: float, turns: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Let lines wind about themselves, the less the nearer to their start."""
    t = np.linspace(0, 1, points.shape[1])
    u = rng.random((len(points), 3, 1))
    often = turns * (0.6 + 0.8 * u[:, 0])
    waves = np.sin(2 * np.pi * (often * t + u[:, 1])) + 0.4 * np.sin(2 * np.pi * (2.3 * often * t + u[:, 2]))
    return points + (amplitude * np.minimum(1, 4 * t) * waves)[..., None] * _normals(points)


def _trunks(anatomy: Anatomy, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return (2 * 6, 4, 2) Bezier control points: of arteries, then veins, four arcades and two small vessels each."""
    stretch = np.ones((6, 1, 2))
    stretch[:2, :, 1] = anatomy.arcade
    control = np.where(_ABOUT_FOVEA[..., None], anatomy.fovea, anatomy.disc) + stretch * _TRUNKS
    control = np.stack([control, control])
    control[:, :, 1:] += (rng.random((2, 6, 3, 2)) - 0.5) * [[0.06, 0.04], [0.12, 0.1], [0.2, 0.2]]
    # Artery and vein of an arcade run side by side, either may be the outer one.
    apart = 0.05 * np.where(rng.random(4) < 0.5, -1.0, 1.0)
    control[:, :4, 1:3, 1] += np.array([-1.0, 1.0])[:, None, None] * apart[:, None] * [0.5, 1.0]
    control[:, :, 0] += (rng.random((2, 6, 2)) - 0.5) * 0.03
    return control.reshape(12, 4, 2)


def _branch(parents: Lines, number: int, length: float, points: int, rng: np.random.Generator) -> Lines:
    """Grow branches from every line, to alternating sides, the longer the nearer to its start."""
    vessels, steps, _ = parents.points.shape
    u = rng.random((4, vessels, number))
    at = 0.15 + 0.8 * (np.arange(number) + u[0]) / number
    node = np.minimum((at * (steps - 1)).astype(int), steps - 2)
    rows = np.arange(vessels)[:, None]
    tangent = parents.points[rows, node + 1] - parents.points[rows, node]
    side = np.where((np.arange(number) + (rng.random((vessels, 1)) < 0.5)) % 2, 1.0, -1.0)
    heading = np.arctan2(tangent[..., 1], tangent[..., 0]) + side * np.deg2rad(28 + 32 * u[1])
    t = np.linspace(0, 1, points)
    angles = heading[..., None] - (side * (0.2 + 0.8 * u[2]))[..., None] * t
    stride = length * (0.55 + 0.9 * u[3]) * (1.1 - 0.5 * at) / (points - 1)
    paces = stride[..., None, None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    paces[:, :, 0] = parents.points[rows, node]
    widths = (1 - 0.6 * t) * (0.55 * parents.widths[rows, node])[..., None]
    return Lines(
        np.cumsum(paces, axis=2).reshape(-1, points, 2), widths.reshape(-1, points), np.repeat(parents.tints, number)
    )


def _settle(lines: Lines, winding: float, turns: float, fovea: NDArray[np.float64], rng: np.random.Generator) -> Lines:
    """Let lines wind, and push them out of the avascular zone of the fovea."""
    away = _wind(lines.points, winding, turns, rng) - fovea
    distance = np.hypot(away[..., :1], away[..., 1:])
    points = fovea + away * (distance**4 + _FOVEAL_RADIUS**4) ** 0.25 / np.maximum(distance, 1e-6)
    return Lines(points, np.maximum(lines.widths, 0.004), lines.tints)


def grow(anatomy: Anatomy, rng: np.random.Generator) -> list[Lines]:
    """Grow the arteries and veins of an eye: twigs, branches, trunks, and the light that the trunks' walls reflect."""
    t = np.linspace(0, 1, 24)[:, None]
    weights = np.concatenate([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3], axis=1)
    widths = anatomy.calibre * (_CALIBRE[:, None] * _TRUNK_CALIBRE).reshape(-1, 1) * (1 - 0.6 * t[:, 0])
    winding = 0.004 + 0.012 * anatomy.tortuosity
    trunks = Lines(weights @ _trunks(anatomy, rng), widths, np.repeat(_TINT, 6))
    trunks = _settle(trunks, winding, 3.0, anatomy.fovea, rng)
    branches = _settle(_branch(trunks, 5, 0.5, 12, rng), 0.7 * winding, 1.4, anatomy.fovea, rng)
    arcades = np.tile(np.arange(6) < 4, 2).repeat(5)
    large = Lines(branches.points[arcades], branches.widths[arcades], branches.tints[arcades])
    twigs = _settle(_branch(large, 2, 0.22, 7, rng), 0.3 * winding, 0.7, anatomy.fovea, rng)
    reflex = Lines(trunks.points, 0.3 * trunks.widths, 0.7 * trunks.tints)
    return [twigs, branches, trunks, reflex]


def tangle(centres: NDArray[np.float64], rng: np.random.Generator) -> Lines:
    """Grow a tangle of fine looping new vessels about each of (N, 2) centres."""
    curls, points = 18, 14
    u = rng.random((len(centres), curls, 5, 1))
    t = np.linspace(0, 1, points)
    start = centres[:, None] + 0.06 * (u[:, :, :2, 0] - 0.5)
    turn = (1 + 5 * u[:, :, 2]) * np.where(u[:, :, 3] < 0.5, -1, 1)
    angles = 2 * np.pi * (u[:, :, 3] + 3 * u[:, :, 2]) + turn * t**2 + 0.9 * np.sin(9 * t + 6 * u[:, :, 4])
    paces = (0.008 + 0.009 * u[:, :, 4])[..., None] * np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    lines = (start[:, :, None] + np.cumsum(paces, axis=2)).reshape(-1, points, 2)
    return Lines(lines, np.full(lines.shape[:2], 0.008), np.ones(len(lines)))


def draw_vessels(vessels: list[Lines], view: View) -> NDArray[np.float32]:
    """Draw vessels.

    Args:
        vessels: In retina coordinates; later ones lie over earlier ones.
        view: The image they are drawn in.

    Returns:
        (H, W) float32 in [0, 1]: the tint of the vessel, times the share of the pixel it covers.
    """
    if not any(len(lines.points) for lines in vessels):
        return np.zeros((view.size, view.size), np.float32)
    factor = max(2, -(-512 // view.size))
    canvas = Image.new("L", (view.size * factor, view.size * factor))
    pen = ImageDraw.Draw(canvas)
    for lines in vessels:
        points = view.pixels(lines.points) * factor - 0.5
        # Pillow paints the pixels that an edge touches, so a polygon comes out about a pixel wider than asked.
        half = np.maximum(lines.widths * (view.scale * factor) - 1, 0)[..., None] / 2 * _normals(points)
        ribbons = np.concatenate([points + half, (points - half)[:, ::-1]], axis=1)
        ribbons = ribbons.reshape(len(ribbons), 4 * points.shape[1]).tolist()
        for ribbon, ink in zip(ribbons, (255 * lines.tints).astype(int).tolist(), strict=True):
            pen.polygon(ribbon, fill=ink)
    return np.asarray(canvas.reduce(factor), np.float32) * np.float32(1 / 255)

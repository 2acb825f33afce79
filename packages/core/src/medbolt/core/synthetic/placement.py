"""Where the lesions of an eye lie: never two of a kind so near that they merge, all inside every camera's field."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.anatomy import DISC, FOVEA
from medbolt.core.synthetic.grading import LesionCounts

_SPACING, _JITTER = 0.165, 0.022
_FINE_SPACING, _FINE_JITTER = 0.06, 0.013
# With these bounds no lesion leaves any camera's field, however the eye is held.
_FIELD, _HEIGHT = 0.82, 0.68  # cells lie within this radius and this distance from the horizontal meridian
_SPOT_FIELD, _SPOT_DISTANCE = 0.7, 0.27  # of soft exudates, which are larger


@dataclass(frozen=True)
class Blobs:
    """Lesions of one kind, each a disc with a wavy rim, in retina coordinates."""

    centres: NDArray[np.float64]
    """(N, 2)"""
    radii: NDArray[np.float64]
    """(N,)"""
    waves: NDArray[np.complex128]
    """(N, 2): the rim is at radius (1 + Re(w_2 exp(2 i t) + w_3 exp(3 i t)))."""
    softness: float
    """Width of the rim's fade, relative to the radius."""


@dataclass(frozen=True)
class Layout:
    """All lesions of one eye in retina coordinates."""

    microaneurysms: Blobs
    haemorrhages: Blobs
    hard_exudates: Blobs
    soft_exudates: Blobs
    neovascularisations: NDArray[np.float64]
    """(N, 2) centres of tangles."""
    preretinal_haemorrhages: NDArray[np.float64]
    """(N, 2) centres."""


@lru_cache(maxsize=1)
def cells() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return (M, 2) places for lesions, a honeycomb that spares disc and fovea, and the quadrant of each."""
    rows = [
        np.stack(np.broadcast_arrays(np.arange(_SPACING / 2 * (1 + k % 2), 1, _SPACING), y), axis=-1)
        for k, y in enumerate(np.arange(_SPACING / 2, 1, _SPACING * np.sqrt(3) / 2))
    ]
    corner = np.concatenate(rows)
    places = np.concatenate([corner * signs for signs in ((1, -1), (-1, -1), (1, 1), (-1, 1))])
    quadrants = np.repeat(np.arange(4), len(corner))
    kept = (np.hypot(*places.T) < _FIELD) & (abs(places[:, 1]) < _HEIGHT)
    kept &= (np.hypot(*(places - DISC).T) > 0.27) & (np.hypot(*(places - FOVEA).T) > 0.11)
    return places[kept], quadrants[kept]


@lru_cache(maxsize=1)
def _fine_cells() -> NDArray[np.float64]:
    """Return (M, 2) places for hard exudates about the fovea: a fine square grid that spares the centre."""
    axis = np.arange(-0.45, 0.45, _FINE_SPACING)
    places = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    distance = np.hypot(*places.T)
    return places[(distance > 0.09) & (distance < 0.45)]


def _near(points: NDArray[np.float64], reserved: list[tuple[NDArray[np.float64], float]]) -> NDArray[np.bool_]:
    """Return which of (M, 2) points lie in one of the reserved (centre, radius) discs."""
    near = np.zeros(len(points), bool)
    for centre, radius in reserved:
        near |= ((points - centre) ** 2).sum(1) < radius**2
    return near


def _blobs(
    centres: NDArray[np.float64],
    jitter: float,
    radius: tuple[float, float],
    waves: tuple[float, float],
    softness: float,
    rng: np.random.Generator,
) -> Blobs:
    n = len(centres)
    u = rng.random((n, 7))
    offset = jitter * np.sqrt(u[:, 0]) * np.exp(2j * np.pi * u[:, 1])
    return Blobs(
        centres + np.stack([offset.real, offset.imag], axis=-1),
        radius[0] + (radius[1] - radius[0]) * u[:, 2],
        np.array(waves, np.complex128) * u[:, 3:5] * np.exp(2j * np.pi * u[:, 5:7]),
        softness,
    )


def _exudate_cells(number: int, rng: np.random.Generator) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (number, 2) places in one or two clusters beside the fovea, and the (K, 2) centres of the clusters."""
    turn = 2 * np.pi * rng.random()
    fine = FOVEA + _fine_cells() @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    clusters = 1 + (number > 12)
    angle = 2 * np.pi * (rng.random() + np.arange(clusters) * (0.3 + 0.4 * rng.random()))
    reach = 0.2 + 0.1 * rng.random(clusters)
    centres = FOVEA + reach[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=-1)
    distance = np.min([np.hypot(*(fine - centre).T) for centre in centres], axis=0)
    return fine[np.argsort(distance + 0.09 * rng.random(len(fine)))[:number]], centres


def _apart(places: NDArray[np.float64], order: NDArray[np.int64], number: int) -> list[int]:
    """Return the first cells in the order that lie far enough from each other for soft exudates."""
    chosen: list[int] = []
    for cell in order.tolist():
        if len(chosen) == number:
            break
        if not chosen or np.hypot(*(places[chosen] - places[cell]).T).min() > _SPOT_DISTANCE:
            chosen.append(cell)
    return chosen


def place(counts: LesionCounts, rng: np.random.Generator) -> Layout:
    """Lay out the lesions of one eye.

    Args:
        counts: Of one eye: arrays of length 1.
        rng: The eye's generator.

    Returns:
        The layout, with exactly the given counts, haemorrhages in their quadrants.
    """
    places, quadrants = cells()
    (small, _, hard, soft, tangles, boats), by_quadrant = counts.totals()[0], counts.haemorrhages[0]

    side = rng.choice([-1.0, 1.0], 2)
    boat = np.array([[0.02 + 0.24 * side[0], 0.40 * side[1]]])[:boats] + 0.03 * (rng.random((boats, 2)) - 0.5)
    elsewhere = np.array([-0.05 - 0.25 * side[0], -0.46 * side[1]]) + 0.1 * (rng.random(2) - 0.5)
    new_vessels = np.stack([DISC + 0.12 * (rng.random(2) - 0.5), elsewhere])
    # New vessels at the disc first, else in every other eye elsewhere only.
    new_vessels = new_vessels[:tangles] if tangles != 1 or rng.random() < 0.5 else new_vessels[1:]
    exudates, clusters = _exudate_cells(int(hard), rng) if hard else (np.empty((0, 2)), np.empty((0, 2)))

    reserved = [(centre, 0.26) for centre in boat] + [(centre, 0.2) for centre in new_vessels]
    reserved += [(centre, 0.17) for centre in clusters]
    # A reserved cell comes last in the order, so it is taken only when a quadrant has no other left.
    order = np.argsort(rng.random(len(places)) + _near(places, reserved))
    spots = _apart(places, order[np.hypot(*places[order].T) < _SPOT_FIELD], soft)
    reserved += [(places[spot], 0.17) for spot in spots]
    order = order[np.argsort(_near(places[order], reserved), kind="stable")]
    bled = np.concatenate([order[quadrants[order] == q][:number] for q, number in enumerate(by_quadrant)])
    dots = order[~np.isin(order, bled)][:small]
    return Layout(
        _blobs(places[dots], 0.04, (0.011, 0.015), (0.0, 0.0), 0.2, rng),
        _blobs(places[bled], _JITTER, (0.024, 0.038), (0.3, 0.12), 0.4, rng),
        _blobs(exudates, _FINE_JITTER, (0.008, 0.0145), (0.1, 0.05), 0.2, rng),
        _blobs(places[spots], 0.03, (0.05, 0.07), (0.25, 0.15), 0.8, rng),
        new_vessels,
        boat,
    )

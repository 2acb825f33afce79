"""Draw lesions: from a layout in retina coordinates to how much of each pixel they cover."""

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.placement import Blobs, Layout
from medbolt.core.synthetic.vessels import draw_vessels, tangle
from medbolt.core.synthetic.view import View

_BOAT = np.array([0.17, 0.12])  # half width and depth of a preretinal haemorrhage
_MASKED = np.array([0.5, 0.5, 0.5, 0.5, 0.2, 0.5], np.float32)[:, None, None]  # new vessels are thinner than a pixel
_LEAST_RADIUS = 0.72  # pixels; a disc of this radius holds at least one pixel centre


def draw_blobs(blobs: Blobs, view: View) -> NDArray[np.float32]:
    """Return (H, W) coverage in [0, 1] of blobs; a pixel belongs to the lesion's mask from one half on."""
    canvas = np.zeros(view.size * view.size, np.float32)
    if not len(blobs.centres):
        return canvas.reshape(view.size, view.size)
    centres = view.pixels(blobs.centres)
    radii = np.maximum(blobs.radii * view.scale, _LEAST_RADIUS)[:, None, None]
    reach = int(np.ceil(radii.max() * (1 + np.abs(blobs.waves).sum(1).max() + blobs.softness / 2) + 1))
    corner = np.floor(centres).astype(np.int64)
    offsets = np.arange(-reach, reach + 1)
    columns, rows = corner[:, 0, None] + offsets, corner[:, 1, None] + offsets
    z = (columns + 0.5 - centres[:, 0, None])[:, None, :] + 1j * (rows + 0.5 - centres[:, 1, None])[:, :, None]
    distance = np.abs(z)
    turn = z / np.maximum(distance, 1e-9)
    square = turn * turn
    wave = (blobs.waves[:, 0, None, None] * square + blobs.waves[:, 1, None, None] * square * turn).real
    alpha = 0.5 + (radii * (1 + wave) - distance) / (1 + blobs.softness * radii)
    inside = ((columns >= 0) & (columns < view.size))[:, None, :] & ((rows >= 0) & (rows < view.size))[:, :, None]
    inside &= alpha > 0
    flat = rows[:, :, None] * view.size + columns[:, None, :]
    np.maximum.at(canvas, flat[inside], np.minimum(alpha[inside], 1).astype(np.float32))
    return canvas.reshape(view.size, view.size)


def _draw_boats(centres: NDArray[np.float64], view: View) -> NDArray[np.float32]:
    """Return (H, W) coverage of preretinal haemorrhages: blood that has settled, level above and round below."""
    canvas = np.zeros((view.size, view.size), np.float32)
    y, x = np.ogrid[: view.size, : view.size]
    for centre in view.pixels(centres):
        width, depth = _BOAT * view.scale
        down, across = y + 0.5 - centre[1], x + 0.5 - centre[0]
        bowl = (1 - np.sqrt((across / width) ** 2 + (np.maximum(down, 0) / depth) ** 2)) * depth
        level = down + 0.12 * depth
        canvas = np.maximum(canvas, np.clip(0.5 + np.minimum(bowl, level), 0, 1).astype(np.float32))
    return canvas


def draw_lesions(layout: Layout, view: View, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw all lesions of an eye.

    Args:
        layout: Where they lie.
        view: The image they are drawn in.
        rng: Shapes the new vessels.

    Returns:
        (6, H, W) float32 coverage in [0, 1], in the order of :data:`~medbolt.core.synthetic.grading.LESIONS`.
    """
    blobs = (layout.microaneurysms, layout.haemorrhages, layout.hard_exudates, layout.soft_exudates)
    new_vessels = draw_vessels([tangle(layout.neovascularisations, rng)], view)
    return np.stack(
        [*(draw_blobs(each, view) for each in blobs), new_vessels, _draw_boats(layout.preretinal_haemorrhages, view)]
    )


def lesion_masks(lesions: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return (K, H, W) masks, 0 or 1, of the (K, H, W) coverage by the first K kinds."""
    return (lesions >= _MASKED[: len(lesions)]).astype(np.uint8)

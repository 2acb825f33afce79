"""Everything that is drawn in one image, before it is painted."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.anatomy import Anatomy, draw_anatomy
from medbolt.core.synthetic.cameras import Camera
from medbolt.core.synthetic.counter import Stream, generator
from medbolt.core.synthetic.grading import LesionCounts
from medbolt.core.synthetic.lesions import draw_lesions
from medbolt.core.synthetic.outlines import DiscGrid, disc_grid
from medbolt.core.synthetic.placement import place
from medbolt.core.synthetic.vessels import draw_vessels, grow
from medbolt.core.synthetic.view import View, view_of


@dataclass(frozen=True)
class Scene:
    """One eye with its lesions as one camera frames it."""

    anatomy: Anatomy
    view: View
    grid: DiscGrid
    """The pixels about the optic disc."""
    vessels: NDArray[np.float32]
    """(H, W) in [0, 1], how much blood a pixel shows; an artery shows less than a vein."""
    lesions: NDArray[np.float32]
    """(6, H, W) in [0, 1], how much of a pixel each kind of lesion covers."""


def draw_scene(seed: int, index: int, counts: LesionCounts, camera: Camera, size: int) -> Scene:
    """Draw the eye of a sample; everything but the frame is a function of (seed, index, counts).

    Args:
        seed: At least 0.
        index: Of the sample.
        counts: Its lesions: arrays of length 1.
        camera: Frames the eye.
        size: Pixels a side of the image.
    """
    anatomy = draw_anatomy(seed, index)
    view = view_of(anatomy, size, camera.extent)
    rng = generator(seed, Stream.LESIONS, index)
    return Scene(
        anatomy,
        view,
        disc_grid(anatomy, view),
        draw_vessels(grow(anatomy, generator(seed, Stream.VESSELS, index)), view),
        draw_lesions(place(counts, rng), view, rng),
    )

"""What is in an image, beyond the masks that belong to the sample."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from medbolt.core.synthetic.anatomy import Anatomy
from medbolt.core.synthetic.cameras import Camera, field_of_view
from medbolt.core.synthetic.lesions import lesion_masks
from medbolt.core.synthetic.outlines import draw_outlines
from medbolt.core.synthetic.scene import Scene


@dataclass(frozen=True)
class FundusTruth:
    """The truth about one image. Masks are 0 or 1 unless another coding is given, points are (x, y) in pixels."""

    outline: Tensor
    """(H, W) uint8, the true optic disc: 0 background, 1 rim, 2 cup."""
    lesions: Tensor
    """(6, H, W) uint8, all kinds in the order of :data:`~medbolt.core.synthetic.grading.LESIONS`."""
    vessels: Tensor
    """(H, W) uint8, arteries and veins, without new vessels."""
    field: Tensor
    """(H, W) uint8, the camera's field of view."""
    quadrants: Tensor
    """(H, W) uint8, index into :data:`~medbolt.core.synthetic.grading.QUADRANTS`."""
    disc: tuple[float, float]
    """Centre of the optic disc."""
    fovea: tuple[float, float]
    cup_to_disc: float
    """Vertical cup-to-disc ratio."""


def _cup_to_disc(anatomy: Anatomy) -> float:
    """Return the ratio of the heights of cup and disc above and below the disc's centre."""
    up_and_down = np.array([[1j], [-1j]]) ** np.arange(len(anatomy.disc_outline))
    cup, disc = ((up_and_down @ outline).real.sum() for outline in (anatomy.cup_outline, anatomy.disc_outline))
    return float(cup / disc)


def truth_of(scene: Scene, camera: Camera) -> FundusTruth:
    """Return the truth about a scene as a camera sees it."""
    anatomy, view = scene.anatomy, scene.view
    field = field_of_view(camera, view.size)[0] >= 0.5
    everywhere = slice(0, view.size)
    x, y = np.moveaxis(view.retina_grid(everywhere, everywhere), -1, 0)
    outline = draw_outlines(anatomy.disc_outline[None], anatomy.cup_outline[None], scene.grid, view.size)[0]
    (disc_x, disc_y), (fovea_x, fovea_y) = (view.pixels(point).tolist() for point in (anatomy.disc, anatomy.fovea))
    return FundusTruth(
        outline=torch.from_numpy(outline),
        lesions=torch.from_numpy(lesion_masks(scene.lesions)),
        vessels=torch.from_numpy(((scene.vessels >= 0.25) & field).astype(np.uint8)),
        field=torch.from_numpy(field.astype(np.uint8)),
        quadrants=torch.from_numpy(((x < 0) + 2 * (y > 0)).astype(np.uint8)),
        disc=(disc_x, disc_y),
        fovea=(fovea_x, fovea_y),
        cup_to_disc=_cup_to_disc(anatomy),
    )

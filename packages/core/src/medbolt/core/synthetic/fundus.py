"""The embedded data set: procedural fundus photographs of which everything is known."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from medbolt.core.errors import UserError
from medbolt.core.synthetic.cameras import CAMERAS, photograph
from medbolt.core.synthetic.counter import Stream, generator, uniform
from medbolt.core.synthetic.grading import GRADES, HIERARCHY, LESIONS, LesionCounts, draw_counts
from medbolt.core.synthetic.labels import draw_domains, draw_grades, draw_populations, patient
from medbolt.core.synthetic.lesions import lesion_masks
from medbolt.core.synthetic.outlines import draw_outlines, rater_outlines
from medbolt.core.synthetic.report_text import sentence
from medbolt.core.synthetic.retina import POPULATIONS, paint
from medbolt.core.synthetic.scene import Scene, draw_scene
from medbolt.core.synthetic.truth import FundusTruth, truth_of

PREVALENCE = (0.5, 0.15, 0.2, 0.1, 0.05)
"""Default share of the grades 0 to 4."""


class SyntheticFundus(Dataset[dict[str, Any]]):
    """Draw fundus photographs with diabetic retinopathy, and every truth about them, from nothing but a seed.

    Sample i is a pure function of (seed, i) and of the options that concern it: the same whatever the size of the
    data set, the order, the worker or the process; the same eye at every image size and through every camera. The grade
    is drawn first, then lesion counts from which the published rule makes that grade, simplified as described in
    :func:`medbolt.core.synthetic.grading.grade`. Samples 2p and 2p + 1 are the right and the left eye of patient p,
    taken with one camera; their anatomy and their grades are correlated.

    A sample follows the batch contract (:mod:`medbolt.core.batch`), before transforms:

    ========== =========================================================================================
    key        value
    ========== =========================================================================================
    ``image``  (3, H, W) uint8
    ``target`` int, grade 0 to 4
    ``index``  int
    ``domain`` int, the camera
    ``id``     str, ``"fundus-000012"``
    ``group``  str, the patient, ``"patient-000006"``
    ``mask``   (4, H, W) uint8, microaneurysms, haemorrhages, hard exudates, soft exudates
    ``raters`` (R, H, W) uint8, each rater's optic disc: 0 background, 1 rim, 2 cup (the disc is 1 and 2)
    ``text``   str, a report sentence: eye, grade and lesion kinds
    ========== =========================================================================================

    The columns ``targets``, ``domains``, ``populations``, ``ids``, ``groups`` and ``lesion_counts`` of all samples cost
    milliseconds: nothing is drawn for them.

    Cameras: 0 tabletop, the reference; 1 film, a dark red truncated field with grain; 2 handheld, small, blurred and
    hazy with a reflex; 3 scanning laser, green false colours, wide and JPEG-compressed. Each stands among another mix
    of populations (light, medium and dark fundi). Rater r has one style in every data set
    (:func:`medbolt.core.synthetic.outlines.rater_style`): a bias of disc and cup, roughness, unsteadiness.

    Args:
        size: Number of samples.
        image_size: Pixels a side, 32 to 512. Below 64 the small lesions are about a pixel wide.
        seed: At least 0.
        prevalence: Relative frequency of the grades 0 to 4. None means 0.5, 0.15, 0.2, 0.1, 0.05, a moderate long tail;
            ``(1, 1, 1, 1, 1)`` is balanced.
        domains: Cameras in use, as often each; None means all four. Choosing other cameras changes the photographs, not
            the eyes, only their pigmentation.
        num_raters: Number of raters, at least 1.

    Raises:
        UserError: if an argument is out of its range.

    Example:
        >>> data = SyntheticFundus(size=1000, image_size=64)
        >>> sample = data[7]
        >>> sample["image"].shape, sample["mask"].shape, sample["raters"].shape
        (torch.Size([3, 64, 64]), torch.Size([4, 64, 64]), torch.Size([4, 64, 64]))
        >>> sample["text"]
        'Left eye: no diabetic retinopathy with a normal disc, macula and vessels.'
    """

    class_names = GRADES
    domain_names = tuple(camera.name for camera in CAMERAS)
    population_names = POPULATIONS
    lesion_names = LESIONS
    hierarchy = HIERARCHY
    """Each class's ancestors, nearest first."""

    def __init__(
        self,
        size: int,
        image_size: int = 128,
        seed: int = 0,
        prevalence: Sequence[float] | None = None,
        domains: Sequence[int] | None = None,
        num_raters: int = 4,
    ) -> None:
        self.prevalence = _checked_prevalence(PREVALENCE if prevalence is None else prevalence)
        used = tuple(range(len(CAMERAS)) if domains is None else domains)
        if size < 1:
            raise UserError(f"size must be at least 1, got {size}.")
        if not 32 <= image_size <= 512:
            raise UserError(f"image_size must be 32 to 512 pixels, got {image_size}.")
        if not 0 <= seed < 2**63:
            raise UserError(f"seed must be at least 0 and below 2**63, got {seed}.")
        if not used or len(set(used)) < len(used) or not set(used) <= set(range(len(CAMERAS))):
            raise UserError(f"domains must be different numbers of cameras, 0 to {len(CAMERAS) - 1}, got {domains}.")
        if num_raters < 1:
            raise UserError(f"num_raters must be at least 1, got {num_raters}.")
        self.size, self.image_size, self.seed, self.num_raters = size, image_size, seed, num_raters
        self.targets = torch.from_numpy(draw_grades(seed, size, np.array(self.prevalence)))
        """(N,) int64"""
        self.domains = torch.from_numpy(draw_domains(seed, size, np.array(used, np.int64)))
        """(N,) int64"""
        self.populations = torch.from_numpy(draw_populations(seed, self.domains.numpy()))
        """(N,) int64, index into ``population_names``."""

    @cached_property
    def ids(self) -> list[str]:
        """N names of the images."""
        return [f"fundus-{index:06d}" for index in range(self.size)]

    @cached_property
    def groups(self) -> list[str]:
        """N names of the patients."""
        return [f"patient-{number:06d}" for number in patient(np.arange(self.size))]

    @cached_property
    def lesion_counts(self) -> LesionCounts:
        """The lesions drawn in each eye; :func:`medbolt.core.synthetic.grading.grade` of them is ``targets``."""
        return draw_counts(self.seed, self.targets.numpy())

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> dict[str, Any]:
        scene = self._scene(index)
        camera = CAMERAS[self.domains[index]]
        retina = paint(scene, int(self.populations[index]))
        raters = rater_outlines(scene.anatomy, self.num_raters, generator(self.seed, Stream.RATERS, index))
        return {
            "image": torch.from_numpy(photograph(camera, retina, generator(self.seed, Stream.CAMERA, index))),
            "target": int(self.targets[index]),
            "index": index,
            "domain": int(self.domains[index]),
            "id": self.ids[index],
            "group": self.groups[index],
            "mask": torch.from_numpy(lesion_masks(scene.lesions[:4])),
            "raters": torch.from_numpy(draw_outlines(*raters, scene.grid, self.image_size)),
            "text": self.report(index),
        }

    def _scene(self, index: int) -> Scene:
        if not 0 <= index < self.size:
            raise IndexError(f"index {index} is out of range for {self.size} samples")
        counts = self.lesion_counts.take(index)
        return draw_scene(self.seed, index, counts, CAMERAS[self.domains[index]], self.image_size)

    def report(self, index: int) -> str:
        """Return the report sentence of a sample without drawing it."""
        wording = uniform(self.seed, Stream.WORDING, np.array([index]), draws=1)[0, 0]
        side = "left" if index % 2 else "right"
        counts = self.lesion_counts.take(index).totals()[0].tolist()
        return sentence(int(self.targets[index]), counts, side, float(wording))

    def truth(self, index: int) -> FundusTruth:
        """Return what is in the image of a sample, beyond the sample's own masks."""
        return truth_of(self._scene(index), CAMERAS[self.domains[index]])


def _checked_prevalence(weights: Sequence[float]) -> tuple[float, ...]:
    values = np.asarray(weights, np.float64)
    if values.shape != (len(GRADES),) or not np.isfinite(values).all() or (values < 0).any() or values.sum() == 0:
        raise UserError(f"prevalence must be {len(GRADES)} numbers of at least 0, not all 0, got {weights}.")
    return tuple((values / values.sum()).tolist())

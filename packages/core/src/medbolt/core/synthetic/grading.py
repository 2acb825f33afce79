"""The diabetic retinopathy grade and the lesion counts that make it."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.counter import Stream, uniform

GRADES = (
    "no diabetic retinopathy",
    "mild non-proliferative diabetic retinopathy",
    "moderate non-proliferative diabetic retinopathy",
    "severe non-proliferative diabetic retinopathy",
    "proliferative diabetic retinopathy",
)
HIERARCHY = {
    GRADES[0]: ("no retinopathy", "healthy retina"),
    GRADES[1]: ("non-proliferative retinopathy", "diabetic retinopathy"),
    GRADES[2]: ("non-proliferative retinopathy", "diabetic retinopathy"),
    GRADES[3]: ("non-proliferative retinopathy", "diabetic retinopathy"),
    GRADES[4]: ("proliferative retinopathy", "diabetic retinopathy"),
}
"""Each grade's ancestors, nearest first; every path has the same length."""

LESIONS = (
    "microaneurysm",
    "haemorrhage",
    "hard exudate",
    "soft exudate",
    "neovascularisation",
    "preretinal haemorrhage",
)
"""Lesion kinds in the order of the masks; the first four are the ones of a sample's ``mask``."""

QUADRANTS = ("superior nasal", "superior temporal", "inferior nasal", "inferior temporal")

SEVERE = 3
"""Haemorrhages in each quadrant from which on a retinopathy is severe; stands in for the scale's "more than 20"."""


class LesionCounts(NamedTuple):
    """How many lesions of each kind the eyes of N samples have."""

    microaneurysms: NDArray[np.int64]
    """(N,)"""
    haemorrhages: NDArray[np.int64]
    """(N, 4), by quadrant in the order of :data:`QUADRANTS`: intraretinal dots and blots."""
    hard_exudates: NDArray[np.int64]
    """(N,) single deposits."""
    soft_exudates: NDArray[np.int64]
    """(N,) cotton wool spots."""
    neovascularisations: NDArray[np.int64]
    """(N,) tangles of new vessels."""
    preretinal_haemorrhages: NDArray[np.int64]
    """(N,) boat-shaped bleedings before the retina."""

    def take(self, index: int) -> "LesionCounts":
        """Return the counts of one eye, as (1,) and (1, 4) arrays."""
        return LesionCounts(*(column[index : index + 1] for column in self))

    def totals(self) -> NDArray[np.int64]:
        """Return (N, 6) counts in the order of :data:`LESIONS`, the haemorrhages of the four quadrants summed."""
        return np.stack([column.reshape(len(column), -1).sum(1) for column in self], axis=1)


def grade(counts: LesionCounts) -> NDArray[np.int64]:
    """Return the grade 0 to 4 that follows from the lesion counts.

    The International Clinical Diabetic Retinopathy severity scale, simplified:

    ===== ====================================== ===================================================================
    grade the scale                              here
    ===== ====================================== ===================================================================
    0     no abnormalities                       no lesion
    1     microaneurysms only                    the same
    2     more than just microaneurysms, but     any haemorrhage, hard or soft exudate, below grade 3
          less than severe
    3     more than 20 haemorrhages in each of   at least 3 haemorrhages (:data:`SEVERE`) in each of four quadrants
          four quadrants, venous beading in two, of the field about its centre; beading and intraretinal
          or intraretinal microvascular          microvascular abnormalities are not drawn
          abnormalities in one
    4     neovascularisation, vitreous or        a tangle of new vessels or a preretinal haemorrhage; the vitreous
          preretinal haemorrhage                 stays clear
    ===== ====================================== ===================================================================

    Args:
        counts: Of N eyes.

    Returns:
        (N,) int64.

    Source: Wilkinson et al., Ophthalmology 110:1677-1682, 2003, doi 10.1016/S0161-6420(03)00475-5.

    Example:
        >>> none, one = np.zeros(1, np.int64), np.ones(1, np.int64)
        >>> grade(LesionCounts(one, np.zeros((1, 4), np.int64), none, none, none, none))
        array([1])
    """
    proliferative = (counts.neovascularisations + counts.preretinal_haemorrhages) > 0
    severe = (counts.haemorrhages >= SEVERE).all(1)
    moderate = (counts.haemorrhages.sum(1) + counts.hard_exudates + counts.soft_exudates) > 0
    mild = counts.microaneurysms > 0
    return np.select([proliferative, severe, moderate, mild], [4, 3, 2, 1], 0).astype(np.int64)


# Lowest and highest count at grades 0 to 4; a haemorrhage count is one quadrant's.
_MICROANEURYSMS = np.array([(0, 0), (3, 14), (4, 16), (6, 18), (6, 18)])
_HAEMORRHAGES = np.array([(0, 0), (0, 0), (0, 3), (SEVERE, 6), (0, 5)])
_HARD_EXUDATES = np.array([(0, 0), (0, 0), (6, 24), (8, 30), (8, 30)])
_SOFT_EXUDATES = np.array([(0, 0), (0, 0), (1, 2), (1, 4), (1, 4)])
# Probability that an eye of the grade has exudates at all.
_HAS_HARD_EXUDATES = np.array([0, 0, 0.6, 0.7, 0.6])
_HAS_SOFT_EXUDATES = np.array([0, 0, 0.4, 0.6, 0.5])


def draw_counts(seed: int, grades: NDArray[np.int64]) -> LesionCounts:
    """Draw lesion counts of which :func:`grade` makes exactly the given grades.

    Args:
        seed: At least 0.
        grades: (N,) of the samples 0 to N-1.

    Returns:
        Counts of the N eyes; those of sample i depend on the seed, i and its grade alone.
    """
    u = uniform(seed, Stream.COUNTS, np.arange(len(grades)), draws=14)

    def between(ranges: NDArray[np.int64], u: NDArray[np.float64]) -> NDArray[np.int64]:
        low, high = ranges[grades].T.reshape(2, -1, *[1] * (u.ndim - 1))
        return low + (u * (high - low + 1)).astype(np.int64)

    haemorrhages = between(_HAEMORRHAGES, u[:, :4])
    hard = between(_HARD_EXUDATES, u[:, 4]) * (u[:, 5] < _HAS_HARD_EXUDATES[grades])
    soft = between(_SOFT_EXUDATES, u[:, 6]) * (u[:, 7] < _HAS_SOFT_EXUDATES[grades])

    # Moderate: one quadrant stays below the severe count, and something besides microaneurysms is there.
    moderate = np.flatnonzero(grades == 2)
    quadrant = (u[moderate, 8] * 4).astype(np.int64)
    haemorrhages[moderate, quadrant] = np.minimum(haemorrhages[moderate, quadrant], SEVERE - 1)
    bare = moderate[haemorrhages[moderate].sum(1) + hard[moderate] + soft[moderate] == 0]
    haemorrhages[bare, (u[bare, 9] * 4).astype(np.int64)] = 1

    # Proliferative: new vessels in most eyes, a preretinal haemorrhage in every other and wherever there are none.
    proliferative = grades == 4
    vessels = proliferative * np.array([0, 1, 1, 2, 2])[(u[:, 10] * 5).astype(np.int64)]
    preretinal = (proliferative & ((vessels == 0) | (u[:, 11] < 0.5))).astype(np.int64)
    return LesionCounts(between(_MICROANEURYSMS, u[:, 12]), haemorrhages, hard, soft, vessels, preretinal)

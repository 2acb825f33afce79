"""Grade, camera and population of every sample, drawn without drawing an eye."""

import numpy as np
from numpy.typing import NDArray

from medbolt.core.synthetic.cameras import CAMERAS
from medbolt.core.synthetic.counter import Stream, uniform

SHARED_GRADE = 0.8
"""Probability that an eye takes its patient's grade; two eyes of a patient agree through it with probability 0.64."""


def patient(index: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the patient of each sample: samples 2p and 2p + 1 are the right and the left eye of patient p."""
    return index // 2


def _pick(u: NDArray[np.float64], weights: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the category of each uniform number under (C,) or per-row (N, C) weights that sum to 1."""
    edges = np.cumsum(weights, axis=-1)[..., :-1]
    return (u[:, None] >= edges).sum(1)


def draw_grades(seed: int, size: int, prevalence: NDArray[np.float64]) -> NDArray[np.int64]:
    """Draw (size,) grades whose marginal distribution is the prevalence, correlated between the eyes of a patient."""
    index = np.arange(size)
    shared = _pick(uniform(seed, Stream.PATIENT_GRADE, patient(index), draws=1)[:, 0], prevalence)
    own = _pick(uniform(seed, Stream.EYE_GRADE, index, draws=1)[:, 0], prevalence)
    return np.where(uniform(seed, Stream.SHARED_GRADE, index, draws=1)[:, 0] < SHARED_GRADE, shared, own)


def draw_domains(seed: int, size: int, domains: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw (size,) cameras uniformly from the given ones; both eyes of a patient are taken with the same."""
    u = uniform(seed, Stream.DOMAIN, patient(np.arange(size)), draws=1)[:, 0]
    return domains[(u * len(domains)).astype(np.int64)]


def draw_populations(seed: int, domains: NDArray[np.int64]) -> NDArray[np.int64]:
    """Draw (N,) populations in the mix of the place where the camera stands."""
    u = uniform(seed, Stream.POPULATION, patient(np.arange(len(domains))), draws=1)[:, 0]
    return _pick(u, np.array([camera.populations for camera in CAMERAS])[domains])

"""Duplicate images, found by perceptual hashes and confirmed on thumbnails."""

import math
from typing import NamedTuple

import numpy as np
from scipy import ndimage
from torch import Tensor
from torchvision.transforms.v2 import functional as F

_SIDE = 32  # pixels of a thumbnail
_PRIOR = 10  # shapeless thumbnails that count towards the mean, so that it is not the images themselves in a small set
_PAIRS_AT_ONCE = 10_000_000


class Duplicate(NamedTuple):
    """Two images that look alike."""

    first: int
    second: int
    is_exact: bool
    """Whether their pixels are the same."""


def difference_hash(image: Tensor) -> int:
    """Return 64 bits that say where an image gets brighter from left to right, on a grid of 8 x 8.

    Compression, resizing and brightness change few bits.

    Args:
        image: (3, H, W) uint8.

    Returns:
        The hash, in [0, 2**64).

    Example:
        >>> ramp = torch.arange(0, 180, 5, dtype=torch.uint8).expand(3, 20, -1)
        >>> difference_hash(ramp) == 2**64 - 1, difference_hash(ramp.flip(-1))
        (True, 0)
    """
    grey = F.resize(F.rgb_to_grayscale(image).float(), [8, 9], antialias=True)[0]
    return int.from_bytes(np.packbits((grey[:, 1:] > grey[:, :-1]).numpy()).tobytes(), "big")


def grey_thumbnail(image: Tensor) -> Tensor:
    """Return an image in 32 x 32 grey pixels, which tell copies from look-alikes.

    Args:
        image: (3, H, W) uint8.

    Returns:
        (32, 32) uint8.

    Example:
        >>> grey_thumbnail(torch.zeros(3, 40, 60, dtype=torch.uint8)).shape
        torch.Size([32, 32])
    """
    return F.rgb_to_grayscale(F.resize(image, [_SIDE, _SIDE], antialias=True))[0]


def find_duplicates(
    hashes: np.ndarray, thumbnails: np.ndarray, digests: np.ndarray, distance: int = 10, correlation: float = 0.92
) -> list[Duplicate]:
    """Find pairs of images with the same pixels, or with similar hashes and the same details.

    Medical images of one kind look alike, and so do their hashes: a lesion in the middle, the disc of a fundus camera.
    Thumbnails are therefore compared by their details, without what is smooth and without what is common to the set.
    All pairs of hashes are compared, in blocks: 10,000 images take a few seconds.

    Args:
        hashes: (N,) uint64 of :func:`difference_hash`.
        thumbnails: (N, H, W) uint8 of :func:`grey_thumbnail`.
        digests: (N,) checksums of the pixels; equal ones are exact duplicates.
        distance: Most bits in which hashes may differ, of 64.
        correlation: Least correlation of the details. The default finds HAM10000 images again after JPEG compression
            at quality 30, halved size or a third more brightness, and no two different lesions there.

    Returns:
        The pairs, ``first < second``, in order.

    Example:
        >>> pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32), dtype=np.uint8)[[0, 1, 0]]
        >>> find_duplicates(np.array([5, 9, 4], dtype=np.uint64), pictures, np.array(["a", "b", "c"]))
        [Duplicate(first=0, second=2, is_exact=False)]
    """
    details = _details(thumbnails)
    block = max(1, _PAIRS_AT_ONCE // max(len(hashes), 1))
    pairs: list[Duplicate] = []
    for start in range(0, len(hashes), block):
        bits = np.bitwise_count(hashes[start : start + block, None] ^ hashes[None, start:])
        first, second = (places + start for places in np.nonzero(bits <= distance))
        first, second = first[first < second], second[first < second]
        is_exact = digests[first] == digests[second]
        alike = is_exact | (_row_products(details, first, second) >= correlation)
        pairs += map(Duplicate, first[alike].tolist(), second[alike].tolist(), is_exact[alike].tolist())
    return pairs


def _details(thumbnails: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(thumbnails.astype(np.float32), sigma=(0, 2, 2))
    details = _unit((thumbnails - smooth).reshape(len(thumbnails), math.prod(thumbnails.shape[1:])))
    return _unit(details - details.sum(0) / (len(details) + _PRIOR))


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)


def _row_products(vectors: np.ndarray, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    blocks = [slice(start, start + 10_000) for start in range(0, len(first), 10_000)]
    products = [np.einsum("nd,nd->n", vectors[first[block]], vectors[second[block]]) for block in blocks]
    return np.concatenate(products) if products else np.zeros(0)

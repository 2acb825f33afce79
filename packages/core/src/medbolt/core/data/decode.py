"""From image files and arrays of any kind to uint8 pictures, by one set of rules."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

_DEPTHS = (8, 10, 12, 14, 16)
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error)


def decode_image(file: Path | BinaryIO) -> Tensor:
    """Decode an image file into RGB, upright by its EXIF orientation.

    Grey is repeated, palettes are looked up, transparency is composited over black, and more than 8 bits are scaled by
    the rule of :func:`array_to_image`. The first frame of several counts.

    Args:
        file: Path or open binary file of any format that Pillow reads.

    Returns:
        (3, H, W) uint8.

    Raises:
        ValueError: if the file is no image, truncated, corrupt or too large; the message completes "<file> ...".

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("L", (5, 4), 77).save(file, "PNG")
        >>> decode_image(file).shape, decode_image(file).unique()
        (torch.Size([3, 4, 5]), tensor([77], dtype=torch.uint8))
    """
    image = _open(file)
    if image.mode in _WITH_ALPHA or "transparency" in image.info:
        return array_to_image(np.asarray(image.convert("RGBA")))
    if image.mode in ("1", "L", "RGB") or image.mode.startswith(("I", "F")):
        return array_to_image(np.asarray(image))
    return array_to_image(np.asarray(image.convert("RGB")))


def decode_mask(file: Path | BinaryIO) -> Tensor:
    """Decode a mask file into class indices, upright by its EXIF orientation.

    One-bit files and files of 0 and 255 only are binary and become 0 and 1; palette files give their palette indices.

    Args:
        file: Path or open binary file of any format that Pillow reads.

    Returns:
        (H, W) uint8.

    Raises:
        ValueError: if the file is no image, or its colours are not grey; the message completes "<file> ...".

    Example:
        >>> import io
        >>> file = io.BytesIO()
        >>> Image.new("1", (3, 2), 1).save(file, "PNG")
        >>> decode_mask(file)
        tensor([[1, 1, 1],
                [1, 1, 1]], dtype=torch.uint8)
    """
    image = _open(file)
    if image.mode in _WITH_ALPHA and image.mode != "PA":
        image = image.convert("RGB")
    array = np.asarray(image)
    if array.ndim == 3:
        if (array != array[..., :1]).any():
            raise ValueError("is a coloured mask; save it with one grey value a class")
        array = array[..., 0]
    return array_to_mask(array)


def array_to_image(array: np.ndarray) -> Tensor:
    """Turn an array into RGB.

    Integers of more than 8 bits are divided by the largest value of their depth, which is the smallest of 8, 10, 12,
    14 and 16 bits that holds the image's largest value: a 12-bit radiograph in a 16-bit file keeps its brightness.
    Floating-point values must lie in [0, 1].

    Args:
        array: (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels; the fourth is opacity, composited over black.

    Returns:
        (3, H, W) uint8.

    Raises:
        ValueError: on another shape, NaN or values out of range; the message completes "<file> ...".

    Example:
        >>> array_to_image(np.array([[0, 4095]], dtype=np.uint16))[0]
        tensor([[  0, 255]], dtype=torch.uint8)
    """
    pixels = _to_uint8(array)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim == 3 and pixels.shape[-1] not in (1, 3, 4) and pixels.shape[0] in (1, 3, 4):
        pixels = np.moveaxis(pixels, 0, -1)
    if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape:
        raise ValueError(f"has shape {array.shape}; images are (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels")
    if pixels.shape[-1] == 4:
        opacity = pixels[..., 3:].astype(np.uint16)
        pixels = ((pixels[..., :3] * opacity + 127) // 255).astype(np.uint8)
    channels_first = np.broadcast_to(np.moveaxis(pixels, -1, 0), (3, *pixels.shape[:2]))
    return torch.from_numpy(np.array(channels_first, order="C"))


def array_to_mask(array: np.ndarray) -> Tensor:
    """Turn an array into class indices; 0 and 255 alone become 0 and 1.

    Args:
        array: (H, W) or (K, H, W), or (H, W, 1), of whole numbers from 0 to 255.

    Returns:
        (H, W) or (K, H, W) uint8.

    Raises:
        ValueError: on another shape or other values; the message completes "<file> ...".

    Example:
        >>> array_to_mask(np.array([[0, 255]]))
        tensor([[0, 1]], dtype=torch.uint8)
    """
    if array.ndim == 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim not in (2, 3) or array.size == 0:
        raise ValueError(f"has shape {array.shape}; masks are (H, W) or (K, H, W)")
    indices = array.astype(np.uint8) if array.dtype.kind in "biuf" and np.isfinite(array).all() else None
    if indices is None or (indices != array).any():
        raise ValueError("has mask values that are no whole numbers from 0 to 255")
    if indices.max() == 255 and not ((indices > 0) & (indices < 255)).any():
        indices = indices // 255
    return torch.from_numpy(np.array(indices, order="C"))


def _open(file: Path | BinaryIO) -> Image.Image:
    try:
        with Image.open(file) as image:
            image.load()
            return ImageOps.exif_transpose(image)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0)  # Pillow's, against small files that unpack to fill the memory
        raise ValueError(f"has more pixels than the {limit:,} that are read; save it smaller or in parts") from error
    except _UNREADABLE as error:
        raise ValueError("is truncated, corrupt or no image; replace it or remove it from the data") from error


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array * np.uint8(255)
    if array.dtype.kind in "iu":
        low, high = int(array.min(initial=0)), int(array.max(initial=0))
        if low < 0 or high >= 1 << _DEPTHS[-1]:
            raise ValueError(f"has values from {low} to {high}; whole numbers must lie in 0 to 65535")
        largest = next((1 << depth) - 1 for depth in _DEPTHS if high < 1 << depth)
        return ((array.astype(np.uint32) * 255 + largest // 2) // largest).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ValueError(f"holds {array.dtype} instead of numbers")
    if not np.isfinite(array).all():
        raise ValueError("has NaN or infinite pixels; repair it or remove it from the data")
    if array.min(initial=0) < 0 or array.max(initial=0) > 1:
        raise ValueError(
            f"has values from {array.min():g} to {array.max():g}; scale floating-point images to [0, 1] or save uint8"
        )
    return np.rint(array * 255).astype(np.uint8)

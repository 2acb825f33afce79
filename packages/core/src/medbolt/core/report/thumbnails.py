"""Small pictures of test samples, embedded in the page."""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from medbolt.core.errors import UserError


def thumbnails(data: Any, ids: Sequence[str], size: int = 160) -> dict[str, str]:
    """Return a JPEG data address for each test sample that the data module can show.

    Args:
        data: A data module; one without ``dataset("test")`` shows none.
        ids: Names of the samples.
        size: Longest side in pixels.

    Returns:
        ``data:`` address by id.
    """
    if not ids or not hasattr(data, "dataset"):
        return {}
    try:
        test = data.dataset("test")
    except UserError:
        return {}
    place = {name: position for position, name in enumerate(test.ids)}
    return {name: _address(test.images[int(test.rows[place[name]])], size) for name in ids if name in place}


def _address(image: Any, size: int) -> str:
    picture = Image.fromarray(np.ascontiguousarray(np.moveaxis(np.asarray(image), 0, -1)))
    picture.thumbnail((size, size))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

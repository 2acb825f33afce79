"""Small pictures inside HTML pages."""

import base64
import io

from PIL import Image
from torch import Tensor


def thumbnail(image: Tensor, size: int = 160) -> str:
    """Return a picture as a ``data:`` address of a JPEG, for a page that needs no other file.

    Args:
        image: (3, H, W) uint8.
        size: Longest side in pixels; smaller pictures stay as they are.

    Example:
        >>> thumbnail(torch.zeros(3, 20, 40, dtype=torch.uint8))[:23]
        'data:image/jpeg;base64,'
    """
    picture = Image.fromarray(image.permute(1, 2, 0).contiguous().numpy())
    picture.thumbnail((size, size))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"

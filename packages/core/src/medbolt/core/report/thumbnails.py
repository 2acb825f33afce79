"""Small pictures of test samples, embedded in the page."""

from collections.abc import Sequence
from typing import Any

from medbolt.core.errors import UserError
from medbolt.core.thumbnail import thumbnail


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
    return {name: thumbnail(test.images[int(test.rows[place[name]])], size) for name in ids if name in place}

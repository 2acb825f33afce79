"""Where pictures come from, so that a prepared store can tell whether it holds them."""

import hashlib

from medbolt.core.data.dataset import ImageDataset, Images


def source_of(images: Images, row: int) -> str:
    """Return what tells picture ``row`` from another, without decoding it; empty where the source cannot say.

    Example:
        >>> from medbolt.core.data.images import ImageFiles
        >>> source_of(ImageFiles(".", ["scans.npz/images/7"]), 0)
        'scans.npz/images/7'
    """
    source = getattr(images, "source", None)
    return "" if source is None else source(row)


def fingerprints(dataset: ImageDataset) -> list[str]:
    """Return N fingerprints, each of where a sample's image and layers come from."""
    pictures = [dataset.images, *dataset.layers.values()]
    texts = ("\0".join(source_of(images, row) for images in pictures) for row in dataset.rows.tolist())
    return [hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:16] for text in texts]

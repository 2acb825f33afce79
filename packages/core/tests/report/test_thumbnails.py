import base64
import io

import numpy as np
import torch
from PIL import Image

from medbolt.core import ImageDataModule, ImageDataset
from medbolt.core.report.thumbnails import thumbnails


class Data(ImageDataModule):
    class_names = ("healthy",)  # pyright: ignore[reportAssignmentType]

    def load(self, split):
        images = [torch.full((3, 300, 200), 40 * i, dtype=torch.uint8) for i in range(5)]
        return ImageDataset(images, torch.zeros(5, dtype=torch.int64), list("abcde")).select([4, 2, 1])


def decode(address: str) -> np.ndarray:
    kind, _, content = address.partition(",")
    assert kind == "data:image/jpeg;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_the_picture_is_that_of_the_name_also_in_a_subset():
    shown = thumbnails(Data(), ["b", "e", "unknown"], size=60)
    assert set(shown) == {"b", "e"}
    assert decode(shown["b"]).shape == (60, 40, 3)
    assert abs(decode(shown["b"]).mean() - 40) < 2
    assert abs(decode(shown["e"]).mean() - 160) < 2


def test_without_pictures_none_are_shown():
    assert thumbnails(None, ["a"]) == {}
    assert thumbnails(Data(), []) == {}

import base64
import io

import numpy as np
import torch
from PIL import Image

from medbolt.core.thumbnail import thumbnail


def decoded(address: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(address.removeprefix("data:image/jpeg;base64,"))))


def test_shrinks_to_the_longest_side_and_keeps_colours():
    image = torch.zeros(3, 100, 200, dtype=torch.uint8)
    image[0] = 200
    picture = decoded(thumbnail(image, 50))
    assert picture.size == (50, 25)
    assert np.abs(np.asarray(picture).astype(int) - [200, 0, 0]).max() < 8


def test_small_pictures_stay_as_they_are():
    assert decoded(thumbnail(torch.zeros(3, 8, 9, dtype=torch.uint8))).size == (9, 8)

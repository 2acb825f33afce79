import hashlib
import io

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from medbolt.core.data import duplicates
from medbolt.core.data.decode import array_to_image
from medbolt.core.data.duplicates import Duplicate, difference_hash, find_duplicates, grey_thumbnail


def picture(seed: int) -> torch.Tensor:
    """A skin lesion of sorts: all alike from afar, with details of their own."""
    rng = np.random.default_rng(seed)
    rows, columns = np.indices((90, 120))
    blob = np.exp(-(((rows - 45 - rng.normal(0, 4)) / 20) ** 2 + ((columns - 60 - rng.normal(0, 4)) / 25) ** 2))
    coarse = torch.from_numpy(rng.normal(0, 25, (1, 15, 20)))
    detail = F.resize(coarse, [90, 120])[0].numpy()
    return array_to_image(np.clip(200 - 130 * blob + detail, 0, 255).astype(np.uint8))


def jpeg(image: torch.Tensor) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(file, "JPEG", quality=40)
    return array_to_image(np.asarray(Image.open(file)))


def search(images: list[torch.Tensor]) -> list[Duplicate]:
    return find_duplicates(
        np.array([difference_hash(image) for image in images], dtype=np.uint64),
        np.stack([grey_thumbnail(image).numpy() for image in images]),
        np.array([hashlib.md5(image.numpy().tobytes()).hexdigest() for image in images]),
    )


def test_the_hash_against_a_plain_loop():
    image = picture(0)
    grey = F.resize(F.rgb_to_grayscale(image).float(), [8, 9], antialias=True)[0].tolist()
    bits = "".join("1" if row[i + 1] > row[i] else "0" for row in grey for i in range(8))
    assert difference_hash(image) == int(bits, 2)


CHANGES = {
    "compressed": jpeg,
    "half size": lambda image: F.resize(image, [45, 60], antialias=True),
    "brighter": lambda image: F.adjust_brightness(image, 1.2),
    "less contrast": lambda image: F.adjust_contrast(image, 0.7),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changed_copies_are_found_and_look_alikes_are_not(change):
    images = [picture(seed) for seed in range(30)]
    images.insert(7, CHANGES[change](images[20]))
    assert search(images) == [Duplicate(7, 21, is_exact=False)]


def test_exact_copies():
    images = [picture(seed) for seed in (0, 1, 0, 2, 1, 0)]
    expected = [(0, 2), (0, 5), (1, 4), (2, 5)]
    assert search(images) == [Duplicate(a, b, is_exact=True) for a, b in expected]


def test_two_images_are_enough():
    assert search([picture(0), jpeg(picture(0))]) == [Duplicate(0, 1, is_exact=False)]
    assert search([picture(0), picture(1)]) == []


def test_uniform_images_are_alike_only_when_equal():
    grey = [torch.full((3, 20, 20), value, dtype=torch.uint8) for value in (0, 90, 0)]
    assert search(grey) == [Duplicate(0, 2, is_exact=True)]


def test_blocks_do_not_matter(monkeypatch):
    images = [picture(seed % 9) for seed in range(25)]
    expected = search(images)
    assert len(expected) == 23
    monkeypatch.setattr(duplicates, "_PAIRS_AT_ONCE", 70)
    assert search(images) == expected


def test_nothing_to_compare():
    assert find_duplicates(np.zeros(0, np.uint64), np.zeros((0, 32, 32), np.uint8), np.zeros(0, str)) == []


@pytest.mark.data
@pytest.mark.slow
def test_real_lesions(shared_data):
    from medbolt.core.data.table import TableDataModule

    data = TableDataModule(shared_data / "ham10000/metadata.csv", "images.zip/{image_id}.jpg", "dx", split="split")
    test = data.dataset("test")
    images = [test.images[i] for i in range(0, 820, 2)]
    copies = [jpeg(image) for image in images[:40]]
    before = set(search(images))
    found = {(pair.first, pair.second) for pair in search(images + copies)}
    assert len(before) < 15
    assert sum((i, len(images) + i) in found for i in range(40)) >= 39

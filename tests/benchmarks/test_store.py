"""What the prepared store saves: reading 224 px images from it, by PIL from photographs, and from a memmap by hand."""

import numpy as np
import pytest
import torch
from PIL import Image

from medbolt.core.data.store import StoreImages, StorePlan
from medbolt.core.data.store_writer import StoreWriter

SIZE, IMAGES = 224, 256


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "store"
    generator = torch.Generator().manual_seed(0)
    with StoreWriter(folder, StorePlan([str(i) for i in range(IMAGES)], {"image": [3, SIZE, SIZE]}, {})) as writer:
        for _ in range(IMAGES):
            picture = torch.randint(0, 256, (3, SIZE, SIZE), dtype=torch.uint8, generator=generator)
            writer.append({"image": picture})
    return folder / "image.npy"


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Four JPEG files of 3000 x 2000 pixels, smooth with some grain, as cameras make them."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    for number in range(4):
        smooth = Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).resize((3000, 2000))
        grain = np.clip(np.asarray(smooth) + rng.normal(0, 4, (2000, 3000, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(grain).save(folder / f"{number}.jpg", quality=90)
    return sorted(folder.iterdir())


def test_the_store_against_decoding_photographs(figures, store, photographs):
    images = StoreImages(store, np.arange(IMAGES))
    order = np.random.default_rng(0).permutation(IMAGES).tolist()

    def decode() -> None:
        for path in photographs:
            np.asarray(Image.open(path).convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR))

    def read() -> None:
        for row in order[: len(photographs)]:
            _ = images[row]

    ratio = figures.compare("store against PIL on 3000 x 2000 JPEG", read, decode, "<= 1/30 = 0.0333", rounds=5)
    assert ratio <= 1 / 30


def test_the_store_against_a_memmap_by_hand(figures, store):
    images, array = StoreImages(store, np.arange(IMAGES)), np.load(store, mmap_mode="r")
    order = np.random.default_rng(0).permutation(IMAGES).tolist()

    def read() -> None:
        for row in order:
            _ = images[row]

    def by_hand() -> None:
        for row in order:
            _ = torch.from_numpy(np.array(array[row]))

    assert figures.compare("store against a memmap by hand", read, by_hand, "<= 2") <= 2

import multiprocessing
import signal
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from medbolt.core.data.base import ImageDataModule
from medbolt.core.data.crop import field_of_view
from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.folder import FolderDataModule
from medbolt.core.data.prepare import prepare
from medbolt.core.data.store import read_plan
from medbolt.core.data.table import TableDataModule
from medbolt.core.errors import UserError


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def with_masks(ten, tmp_path):
    (tmp_path / "masks").mkdir()
    for i in range(10):
        Image.fromarray(np.random.default_rng(i).random((12, 16)) > 0.5).save(tmp_path / f"masks/{i}.png")
    return {"manifest": ten, "mask": "masks/{image}", "split": "split", "image_size": 8}


def test_evaluation_sees_the_same_pixels_with_the_store(with_masks, tmp_path):
    prepare(TableDataModule(**with_masks), tmp_path / "store", size=8)
    plain, stored = TableDataModule(**with_masks), TableDataModule(**with_masks, store=tmp_path / "store")
    for split in ("val", "test"):
        for a, b in zip(plain._eval_loader(split), stored._eval_loader(split), strict=True):
            assert a.keys() == b.keys()
            assert torch.equal(a["image"], b["image"])
            assert torch.equal(a["mask"], b["mask"])
            assert (a["id"], a["index"].tolist()) == (b["id"], b["index"].tolist())


def test_the_store_is_the_same_for_any_number_of_workers(with_masks, tmp_path):
    for workers in (0, 1, 2):
        prepare(TableDataModule(**with_masks), tmp_path / f"store{workers}", size=8, workers=workers)
    assert contents(tmp_path / "store0") == contents(tmp_path / "store1") == contents(tmp_path / "store2")
    assert read_plan(tmp_path / "store0").ids == [f"{i}.png" for i in range(10)]


def test_a_finished_store_is_left_alone(with_masks, tmp_path):
    prepare(TableDataModule(**with_masks), tmp_path / "store", size=8)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()}
    prepare(TableDataModule(**with_masks), tmp_path / "store", size=8)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "store").iterdir()} == before


@pytest.mark.parametrize("workers", [0, 2])
def test_a_corrupt_image_stops_it_and_is_named_and_once_replaced_it_goes_on(with_masks, tmp_path, workers):
    whole = tmp_path / "whole"
    prepare(TableDataModule(**with_masks), whole, size=8)
    content = (tmp_path / "5.png").read_bytes()
    (tmp_path / "5.png").write_bytes(content[:50])
    with pytest.raises(UserError, match=r"5.png \(row 7 of labels.csv\) is truncated, corrupt or no image"):
        prepare(TableDataModule(**with_masks), tmp_path / "store", size=8, workers=workers)
    with pytest.raises(UserError, match="unfinished"):
        read_plan(tmp_path / "store")
    (tmp_path / "5.png").write_bytes(content)
    prepare(TableDataModule(**with_masks), tmp_path / "store", size=8, workers=workers)
    assert contents(tmp_path / "store") == contents(whole)


@pytest.mark.parametrize("change", ["column", "file", "mask"])
def test_a_finished_store_of_other_pictures_is_refused(with_masks, tmp_path, change):
    options = with_masks | {"id": "image"}
    prepare(TableDataModule(**options), tmp_path / "store", size=8)
    if change == "column":
        for i in range(10):
            (tmp_path / f"enhanced-{i}.png").write_bytes((tmp_path / f"{i}.png").read_bytes())
        prepare(TableDataModule(**options), tmp_path / "store", size=8)
        options["manifest"] = tmp_path / "enhanced.csv"
        table = pd.read_csv(with_masks["manifest"])
        table.assign(enhanced="enhanced-" + table["image"]).to_csv(options["manifest"], index=False)
        options["image"] = "enhanced"
    else:
        name = "masks/3.png" if change == "mask" else "3.png"
        Image.fromarray(np.zeros((40, 50), dtype=np.uint8)).save(tmp_path / name)
    with pytest.raises(UserError, match="holds a store of other images or options"):
        prepare(TableDataModule(**options), tmp_path / "store", size=8)


def test_fundus_photographs_are_cropped_to_their_field_of_view(tmp_path):
    rows, columns = np.indices((90, 160)) + 0.5
    disc = (np.hypot(columns - 60, rows - 45) < 40).astype(np.uint8) * 200
    (tmp_path / "eyes/sick").mkdir(parents=True)
    for i in range(4):
        Image.fromarray(disc).save(tmp_path / f"eyes/sick/{i}.png")
    prepare(FolderDataModule(tmp_path / "eyes"), tmp_path / "store", size=64, crop_circle=True)
    image = FolderDataModule(tmp_path / "eyes", store=tmp_path / "store").dataset("train")[0]["image"]
    assert image.shape == (3, 64, 64)
    assert field_of_view(image) == pytest.approx((32, 32, 32), abs=1)


class Twice(ImageDataModule):
    """Names its samples alike in all splits."""

    class_names = ["a"]

    def load(self, split):
        return ImageDataset([torch.zeros(3, 8, 8, dtype=torch.uint8)], None, ["same"])


class Nothing(Twice):
    """Has no samples."""

    def load(self, split):
        return ImageDataset([], None, [])


def test_ids_must_be_unique_over_the_splits(tmp_path):
    with pytest.raises(UserError, match="two samples have the id 'same', by which the store finds them"):
        prepare(Twice(), tmp_path / "store")
    with pytest.raises(UserError, match="Nothing has no images to prepare"):
        prepare(Nothing(), tmp_path / "store")


def prepare_folder(source: Path, output: Path, workers: int) -> None:
    torch.set_num_threads(1)
    prepare(FolderDataModule(source), output, size=64, workers=workers)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_killed_and_started_again_it_writes_the_same(tmp_path, noise, workers):
    (tmp_path / "images/a").mkdir(parents=True)
    for i in range(150):
        Image.fromarray(noise(i, 200, 300)).save(tmp_path / f"images/a/{i:03}.png", compress_level=1)
    prepare(FolderDataModule(tmp_path / "images"), tmp_path / "whole", size=64)
    arguments = (tmp_path / "images", tmp_path / "store", workers)
    process = multiprocessing.get_context("fork").Process(target=prepare_folder, args=arguments)
    process.start()
    array = tmp_path / "store/image.npy"
    while process.is_alive() and not (array.exists() and array.stat().st_size > 400_000):
        time.sleep(0.01)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert array.stat().st_size < (tmp_path / "whole/image.npy").stat().st_size
    with pytest.raises(UserError, match="unfinished"):
        read_plan(tmp_path / "store")
    prepare(FolderDataModule(tmp_path / "images"), tmp_path / "store", size=64)
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")

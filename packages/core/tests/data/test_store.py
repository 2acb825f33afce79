import json
import multiprocessing
import os
import pickle
import resource
import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from medbolt.core.data.dataset import ImageDataset
from medbolt.core.data.store import StoreImages, StorePlan, read_plan, with_store
from medbolt.core.data.store_writer import StoreWriter
from medbolt.core.errors import UserError
from medbolt.core.files import atomic_write

PLAN = StorePlan(list("abcde"), {"image": [3, 4, 4], "mask": [4, 4]}, {"size": 4, "crop_circle": False})
OTHER = StorePlan(PLAN.ids, PLAN.layers, {"size": 4, "crop_circle": True})


def row(number: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    return {
        "image": torch.randint(0, 256, (3, 4, 4), dtype=torch.uint8, generator=generator),
        "mask": torch.full((4, 4), number, dtype=torch.uint8),
    }


def write(folder: Path, stop: int = 5, plan: StorePlan = PLAN) -> int:
    """Write rows up to ``stop`` and return where it started."""
    with StoreWriter(folder, plan) as writer:
        start = writer.start
        for number in range(start, stop):
            writer.append(row(number))
    return start


def dataset(ids: str, index: list[int] | None = None, base: int = 0) -> ImageDataset:
    images = [torch.zeros(3, 9, 9, dtype=torch.uint8)] * (base or len(ids))
    layers = {"mask": [torch.zeros(9, 9, dtype=torch.uint8)] * len(images)}
    return ImageDataset(images, None, list(ids), layers=layers, index=None if index is None else torch.tensor(index))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_rows_are_found_by_id(tmp_path):
    write(tmp_path / "store")
    data = with_store(dataset("dab"), tmp_path / "store")
    for position, number in enumerate([3, 0, 1]):
        assert torch.equal(data[position]["image"], row(number)["image"])
        assert torch.equal(data[position]["mask"], row(number)["mask"])
        assert data[position]["index"] == position


def test_a_selection_keeps_its_base_rows(tmp_path):
    write(tmp_path / "store")
    data = with_store(dataset("eb", index=[6, 2], base=8), tmp_path / "store")
    assert data.base_size == 8
    assert data[0]["index"] == 6
    assert torch.equal(data[0]["image"], row(4)["image"])
    assert torch.equal(data[1]["image"], row(1)["image"])


def test_the_arrays_are_plain_numpy_files(tmp_path):
    write(tmp_path / "store")
    assert sorted(path.name for path in (tmp_path / "store").iterdir()) == ["image.npy", "mask.npy", "store.json"]
    found = np.load(tmp_path / "store/image.npy", allow_pickle=False)
    assert (found == np.stack([row(i)["image"] for i in range(5)])).all()


def test_what_is_read_can_be_changed_and_shared(tmp_path):
    write(tmp_path / "store")
    images = StoreImages(tmp_path / "store/image.npy", np.arange(5))
    images[0].zero_()
    assert torch.equal(images[0], row(0)["image"])
    assert len(pickle.dumps(images)) < 1000
    read = torch.stack(list(DataLoader(images, batch_size=None, num_workers=2)))
    assert torch.equal(read, torch.stack([row(i)["image"] for i in range(5)]))


def test_an_interrupted_store_is_not_read_and_goes_on_where_it_was(tmp_path):
    write(tmp_path / "whole")
    assert write(tmp_path / "store", stop=2) == 0
    with pytest.raises(UserError, match="store holds an unfinished store; run the preparation again to go on"):
        read_plan(tmp_path / "store")
    with pytest.raises(ValueError, match="mmap length|size|buffer"):
        _ = StoreImages(tmp_path / "store/image.npy", np.arange(5))[0]
    assert write(tmp_path / "store") == 2
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")
    assert write(tmp_path / "store") == 5


@pytest.mark.parametrize("cut", [1, 30, 100, 10_000])
def test_rows_that_are_not_whole_in_every_layer_are_written_anew(tmp_path, cut):
    write(tmp_path / "whole")
    write(tmp_path / "store", stop=4)
    array = tmp_path / "store/image.npy"
    os.truncate(array, max(0, array.stat().st_size - cut))
    start = max(0, 4 - -(-cut // 48))
    assert write(tmp_path / "store", stop=0) == start
    assert (tmp_path / "store/mask.npy").stat().st_size == 128 + 16 * start, "what is later than the start is gone"
    assert write(tmp_path / "store") == start
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_an_error_while_writing_leaves_the_store_unfinished(tmp_path):
    def stop_after_one() -> None:
        with StoreWriter(tmp_path / "store", PLAN) as writer:
            writer.append(row(0))
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        stop_after_one()
    assert not (tmp_path / "store/store.json").exists()
    assert write(tmp_path / "store") == 1


@pytest.mark.parametrize("stop", [2, 5])
def test_another_plan_is_refused(tmp_path, stop):
    write(tmp_path / "store", stop)
    with pytest.raises(UserError, match="holds a store of other images or options; choose another folder or delete"):
        write(tmp_path / "store", plan=OTHER)


def with_sources(sources: str) -> StorePlan:
    return replace(PLAN, sources=list(sources))


@pytest.mark.parametrize("stop", [2, 5])
def test_written_rows_are_of_the_same_pictures(tmp_path, stop):
    write(tmp_path / "store", stop, with_sources("vwxyz"))
    for other in ("Vwxyz", "vWxyz"):
        with pytest.raises(UserError, match="holds a store of other images or options"):
            write(tmp_path / "store", plan=with_sources(other))
    assert write(tmp_path / "store", plan=with_sources("vwxyz")) == stop


def test_pictures_replaced_before_their_turn_are_those_of_the_store(tmp_path):
    write(tmp_path / "store", 2, with_sources("vwxyz"))
    assert write(tmp_path / "store", plan=with_sources("vwXyz")) == 2
    assert read_plan(tmp_path / "store") == with_sources("vwXyz")
    with pytest.raises(UserError, match="holds a store of other images or options"):
        write(tmp_path / "store", plan=with_sources("vwxyz"))


@pytest.mark.parametrize("stop", [2, 5])
def test_a_store_of_an_earlier_version_is_read_and_gone_on_with(tmp_path, stop):
    write(tmp_path / "store", stop)
    path = next((tmp_path / "store").glob("*.json"))
    plan = json.loads(path.read_text())
    del plan["sources"]
    path.write_text(json.dumps(plan))
    assert write(tmp_path / "store", plan=with_sources("vwxyz")) == stop
    assert torch.equal(with_store(dataset("d"), tmp_path / "store")[0]["image"], row(3)["image"])


def test_a_folder_with_other_files_is_refused(tmp_path):
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(UserError, match="holds other files; choose an empty folder"):
        write(tmp_path)


def test_a_row_of_another_shape_is_refused(tmp_path):
    with (
        pytest.raises(UserError, match=r"mask of 'a' has shape \(2, 4\) instead of \(4, 4\)"),
        StoreWriter(tmp_path / "store", PLAN) as writer,
    ):
        writer.append(row(0) | {"mask": torch.zeros(2, 4, dtype=torch.uint8)})


def test_samples_and_layers_that_the_store_lacks(tmp_path):
    write(tmp_path / "store")
    with pytest.raises(UserError, match=r"store lacks 2 of 3 samples, such as 'x'; prepare these data anew"):
        with_store(dataset("axy"), tmp_path / "store")
    plan = StorePlan(list("ab"), {"image": [3, 4, 4]}, {})
    write(tmp_path / "bare", 2, plan)
    with pytest.raises(UserError, match="bare has no 'mask'; prepare the data anew"):
        with_store(dataset("ab"), tmp_path / "bare")


def test_folders_that_are_no_store(tmp_path):
    with pytest.raises(UserError, match="there is no .*nowhere"):
        with_store(dataset("a"), tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"holds no store \(medbolt data prepare makes one\)"):
        with_store(dataset("a"), tmp_path)
    (tmp_path / "store.json").write_text("{")
    with pytest.raises(UserError, match=r"store.json is damaged; delete the store and prepare it anew"):
        with_store(dataset("a"), tmp_path)
    (tmp_path / "store.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(UserError, match=r"store.json is of store format 99; read it with a newer medbolt-core"):
        with_store(dataset("a"), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/store cannot be written .*; choose another folder"):
        write(tmp_path / "file/store")


def test_a_disk_that_is_too_small_is_told_at_once(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=100))
    with pytest.raises(UserError, match="there is no space for the store .*, which needs .* GB; free some, then run"):
        write(tmp_path / "store")
    assert list((tmp_path / "store").iterdir()) == []


def in_another_process(function, *arguments) -> int:
    """Run a function in a forked process and return the exit code."""
    process = multiprocessing.get_context("fork").Process(target=function, args=arguments)
    process.start()
    process.join()
    return process.exitcode


def fill(folder: Path, limit: int) -> None:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    plan = StorePlan([str(i) for i in range(400)], {"image": [3, 32, 32]}, {})
    try:
        with StoreWriter(folder, plan) as writer:
            for number in range(writer.start, 400):
                writer.append({"image": torch.full((3, 32, 32), number % 256, dtype=torch.uint8)})
    except UserError as error:
        os._exit(3 if "there is no space for the store" in str(error) else 4)


def test_a_disk_that_fills_up_leaves_nothing_that_could_be_read(tmp_path):
    assert in_another_process(fill, tmp_path / "store", 300_000) == 3
    with pytest.raises(UserError, match="unfinished"):
        read_plan(tmp_path / "store")
    assert 200_000 < (tmp_path / "store/image.npy").stat().st_size < 400 * 3 * 32 * 32
    assert in_another_process(fill, tmp_path / "store", resource.RLIM_INFINITY) == 0
    images = StoreImages(tmp_path / "store/image.npy", np.arange(400))
    assert all((images[i] == i % 256).all() for i in range(400))


def is_refused(folder: Path, plan: StorePlan = PLAN) -> None:
    writer = StoreWriter(folder, plan)
    with pytest.raises(UserError, match="another process is writing the store .*; wait for it to end"):
        writer.__enter__()
    assert all(file.closed for file in writer._files.values())


def test_a_second_writer_is_refused(tmp_path):
    with StoreWriter(tmp_path / "store", PLAN) as writer:
        writer.append(row(0))
        assert in_another_process(is_refused, tmp_path / "store") == 0
        assert in_another_process(write, tmp_path / "store") != 0
    assert write(tmp_path / "store") == 1


def test_of_two_first_writers_the_second_is_refused_before_a_plan_is_written(tmp_path, monkeypatch):
    ends = []

    def meanwhile(path: Path):
        monkeypatch.undo()
        ends.append(in_another_process(is_refused, tmp_path / "store", OTHER))
        return atomic_write(path)

    monkeypatch.setattr("medbolt.core.data.store_writer.atomic_write", meanwhile)
    write(tmp_path / "store")
    assert ends == [0]
    assert read_plan(tmp_path / "store") == PLAN


@pytest.mark.parametrize("stop", [2, 5])
def test_what_another_process_wrote_before_the_lock_was_got_is_respected(tmp_path, monkeypatch, stop):
    usage = shutil.disk_usage(tmp_path)

    def meanwhile(folder: Path):
        monkeypatch.undo()
        assert in_another_process(write, folder, stop) == 0
        return usage

    monkeypatch.setattr(shutil, "disk_usage", meanwhile)
    with pytest.raises(UserError, match="holds a store of other images or options"):
        write(tmp_path / "store", plan=OTHER)
    monkeypatch.setattr(shutil, "disk_usage", meanwhile)
    assert write(tmp_path / "store") == (5 if stop == 5 else 2)
    write(tmp_path / "whole")
    assert contents(tmp_path / "store") == contents(tmp_path / "whole")


def test_a_writer_killed_before_its_plan_was_written_stops_no_other(tmp_path):
    (tmp_path / "store").mkdir()
    (tmp_path / "store/image.npy").touch()
    assert write(tmp_path / "store") == 0
    assert read_plan(tmp_path / "store") == PLAN


def test_reading_is_about_as_fast_as_indexing_a_memmap(tmp_path):
    plan = StorePlan([str(i) for i in range(64)], {"image": [3, 224, 224]}, {})
    with StoreWriter(tmp_path / "store", plan) as writer:
        for _ in range(64):
            writer.append({"image": torch.zeros(3, 224, 224, dtype=torch.uint8)})
    images = StoreImages(tmp_path / "store/image.npy", np.arange(64))
    array = np.load(tmp_path / "store/image.npy", mmap_mode="r")

    def seconds(read) -> float:
        times = []
        for _ in range(7):
            start = time.perf_counter()
            for i in range(64):
                read(i)
            times.append(time.perf_counter() - start)
        return min(times)

    assert seconds(lambda i: images[i]) < 3 * seconds(lambda i: np.array(array[i]))

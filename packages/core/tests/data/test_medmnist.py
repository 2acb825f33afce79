import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from torch import nn
from torchvision.transforms import v2

from medbolt.core.data.medmnist import MedMNISTDataModule
from medbolt.core.data.medmnist_sets import OFFICIAL_SETS
from medbolt.core.errors import UserError


def arrays(classes: int = 3, channels: tuple[int, ...] = (3,), **changes) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    content = {}
    for split, size in (("train", 12), ("val", 6), ("test", 9)):
        content[f"{split}_images"] = rng.integers(0, 256, (size, 8, 8, *channels), dtype=np.uint8)
        content[f"{split}_labels"] = (np.arange(size) % classes).astype(np.uint8)[:, None]
    return content | changes


@pytest.fixture
def root(tmp_path):
    np.savez(tmp_path / "toy.npz", **arrays())
    return tmp_path


@pytest.fixture
def server(tmp_path):
    """Address of a server on this machine, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    handler.func.log_message = lambda *_: None
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}", folder
        http.shutdown()


def test_any_file_of_this_form(root):
    data = MedMNISTDataModule("toy", root)
    assert data.class_names == ["0", "1", "2"]
    assert data.class_counts == [4, 4, 4]
    assert data.dataset("val").ids[:2] == ["toy-val-0", "toy-val-1"]
    batch = next(iter(data.train_dataloader()))
    assert batch["image"].shape == (12, 3, 8, 8)
    assert batch["target"].tolist() == (batch["index"] % 3).tolist()
    assert (data.dataset("test")[4]["image"].permute(1, 2, 0).numpy() == arrays()["test_images"][4]).all()


def test_grey_sets_and_larger_sizes(tmp_path):
    np.savez(tmp_path / "toy_64.npz", **arrays(channels=()))
    assert MedMNISTDataModule("toy", tmp_path, size=64).dataset("train")[0]["image"].shape == (3, 8, 8)


def test_findings(tmp_path):
    labels = {f"{split}_labels": np.eye(4, dtype=np.uint8)[:n] for split, n in (("train", 4), ("val", 2), ("test", 3))}
    images = {f"{split}_images": np.zeros((n, 8, 8), np.uint8) for split, n in (("train", 4), ("val", 2), ("test", 3))}
    np.savez(tmp_path / "toy.npz", **labels, **images)
    data = MedMNISTDataModule("toy", tmp_path)
    assert data.num_classes == 4
    assert data.train_targets.dtype == torch.float32
    assert data.class_counts == [1, 1, 1, 1]


@pytest.mark.parametrize(
    ("names", "flips"),
    [
        (["chestmnist", "pneumoniamnist", "organamnist", "organcmnist", "organsmnist", "mednist_small"], ()),
        (["retinamnist", "octmnist", "breastmnist", "toy"], (v2.RandomHorizontalFlip,)),
        (
            ["pathmnist", "dermamnist", "bloodmnist", "tissuemnist"],
            (v2.RandomHorizontalFlip, v2.RandomVerticalFlip),
        ),
    ],
)
def test_images_are_mirrored_only_where_that_is_right(names, flips):
    for name in names:
        steps = MedMNISTDataModule(name).train_transform.transforms
        mirrors = [type(step) for step in steps if isinstance(step, (v2.RandomHorizontalFlip, v2.RandomVerticalFlip))]
        assert tuple(mirrors) == flips, name
        assert steps[0].__class__ not in (v2.Resize, v2.RandomResizedCrop)
        resized = MedMNISTDataModule(name, image_size=64).train_transform.transforms[0]
        assert isinstance(resized, v2.RandomResizedCrop)


def test_every_official_file_has_a_checksum_of_its_own():
    official = {name: known.md5 for name, known in OFFICIAL_SETS.items() if name != "mednist_small"}
    assert len(official) == 12
    assert all(tuple(md5) == (28, 64, 128, 224) for md5 in official.values())
    digests = [digest for md5 in official.values() for digest in md5.values()]
    assert len(set(digests)) == 48
    assert all(len(bytes.fromhex(digest)) == 16 for digest in digests)


def test_a_given_transform_is_taken_as_it_is():
    given = nn.Sequential()
    assert MedMNISTDataModule("chestmnist", train_transform=given).train_transform is given


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "toy",
            {"train_labels": np.zeros((5, 1), np.uint8)},
            "has 12 train_images and 5 train_labels; get the file anew",
        ),
        (
            "breastmnist",
            {},
            r"row 2 of train_labels in .* is 2, out of 0 to 1; correct the label or the name of the set",
        ),
        ("toy", {"train_labels": np.full((12, 1), -1)}, "row 0 of train_labels in .* is -1, out of"),
        (
            "toy",
            {"train_labels": np.full((12, 1), np.nan)},
            "'train_labels' of .* holds float64; labels are whole numbers",
        ),
        ("toy", {"train_labels": np.array([None] * 12)}, "'train_labels' of .* holds pickled Python objects"),
        ("toy", {"train_images": np.array([None] * 12)}, "'train_images' of .* holds pickled Python objects"),
        ("chestmnist", {"train_labels": np.ones((12, 3), np.uint8)}, "has 3 columns for 14 classes"),
    ],
)
def test_bad_files_are_answered_with_a_sentence(tmp_path, name, changes, message):
    np.savez(tmp_path / f"{name}.npz", **arrays(**changes))
    with pytest.raises(UserError, match=message):
        MedMNISTDataModule(name, tmp_path).dataset("train")


def test_a_missing_file_and_a_missing_array(tmp_path):
    with pytest.raises(UserError, match="there is no .*toy.npz; correct the path"):
        _ = MedMNISTDataModule("toy", tmp_path).class_counts
    np.savez(tmp_path / "toy.npz", images=np.zeros((1, 8, 8)))
    with pytest.raises(UserError, match="has no array 'train_labels'.*; it has 'images'"):
        _ = MedMNISTDataModule("toy", tmp_path).class_counts


def test_download(server, root, tmp_path):
    url, folder = server
    (root / "toy.npz").rename(folder / "toy.npz")
    data = MedMNISTDataModule("toy", tmp_path / "new", download=True, url=url)
    assert data.class_counts == [4, 4, 4], "classes can be asked for before the trainer prepares the data"
    (folder / "toy.npz").unlink()
    data.prepare_data()
    assert len(MedMNISTDataModule("toy", tmp_path / "new").dataset("test")) == 9


@pytest.mark.parametrize(
    ("size", "file", "checksum"),
    [(28, "retinamnist.npz", "bd4c0672f1bba3e3a89f0e4e"), (64, "retinamnist_64.npz", "afda852cc34dcda56f86ad2b")],
)
def test_a_download_with_a_wrong_checksum_is_not_kept(server, root, tmp_path, size, file, checksum):
    url, folder = server
    (root / "toy.npz").rename(folder / file)
    with pytest.raises(UserError, match=f"the download of .*{file} has MD5 .* instead of {checksum}"):
        MedMNISTDataModule("retinamnist", tmp_path / "new", size, download=True, url=url).prepare_data()
    assert list((tmp_path / "new").iterdir()) == []


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("retinamnist", "medmnist", [486, 128, 206, 194, 66]),
        ("breastmnist", "medmnist", [147, 399]),
        ("mednist_small", "mednist", [140] * 6),
    ],
)
def test_real_sets(shared_data, name, folder, counts):
    data = MedMNISTDataModule(name, shared_data / folder)
    data.setup("fit")
    assert data.class_counts == counts
    assert len(data.class_names) == len(counts)
    assert next(iter(data.val_dataloader()))["image"].isfinite().all()


@pytest.mark.data
def test_the_official_checksums(server, shared_data, tmp_path):
    url, folder = server
    for name in ("retinamnist", "breastmnist"):
        (folder / f"{name}.npz").symlink_to(shared_data / f"medmnist/{name}.npz")
        MedMNISTDataModule(name, tmp_path / "new", download=True, url=url).prepare_data()
    assert len(list((tmp_path / "new").iterdir())) == 2

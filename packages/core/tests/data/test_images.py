import io
import pickle
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from medbolt.core.data.images import ImageFiles
from medbolt.core.errors import UserError


@pytest.fixture
def pictures(noise):
    return [noise(seed) for seed in range(6)]


@pytest.fixture
def folder(tmp_path, pictures):
    """The same six pictures as files, as members of a zip file and as rows of an npz array."""
    (tmp_path / "sub").mkdir()
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for number, picture in enumerate(pictures):
            file = io.BytesIO()
            Image.fromarray(picture).save(file, "PNG")
            (tmp_path / f"sub/{number}.png").write_bytes(file.getvalue())
            archive.writestr(f"in/{number}.png", file.getvalue())
    np.savez_compressed(
        tmp_path / "all.npz", images=np.stack(pictures), masks=np.stack(pictures)[:, None, ..., 0] // 128
    )
    return tmp_path


PATTERNS = ["sub/{}.png", "all.zip/in/{}.png", "all.npz/images/{}"]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_kind_of_source_gives_the_same_pictures(folder, pictures, pattern):
    images = ImageFiles(folder, [pattern.format(i) for i in range(6)])
    assert len(images) == 6
    assert images.missing() == []
    for row in (3, 0, 5):
        assert (images[row].permute(1, 2, 0).numpy() == pictures[row]).all()


def test_sources_may_be_mixed_and_absolute(folder, pictures):
    images = ImageFiles(folder / "elsewhere", [str(folder / "sub/1.png"), str(folder / "all.zip/in/2.png")])
    assert images.missing() == []
    assert (images[0].permute(1, 2, 0).numpy() == pictures[1]).all()
    assert (images[1].permute(1, 2, 0).numpy() == pictures[2]).all()


def test_masks_of_raters_from_an_array(folder):
    assert ImageFiles(folder, ["all.npz/masks/4"], mask=True)[0].shape == (1, 12, 16)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_forked_and_pickled_sources_read_on(folder, pictures, pattern):
    images = ImageFiles(folder, [pattern.format(i % 6) for i in range(60)])
    _ = images[0]  # what is open now must not be shared with the workers
    read = torch.stack(list(DataLoader(images, batch_size=None, num_workers=2)))
    expected = np.stack([pictures[i % 6] for i in range(60)])
    assert (read.permute(0, 2, 3, 1).numpy() == expected).all()
    content = pickle.dumps(images)
    assert len(content) < 20_000
    assert torch.equal(pickle.loads(content)[7], images[7])


@pytest.mark.parametrize(
    "reference", ["sub/9.png", "all.zip/in/9.png", "all.npz/images/6", "all.npz/images/-1", "all.npz/images/x", "sub"]
)
def test_missing_pictures_are_named_before_and_while_reading(folder, reference):
    images = ImageFiles(folder, [PATTERNS[0].format(1), reference], places=["row 2 of a.csv", "row 3 of a.csv"])
    assert images.missing() == [1]
    message = rf"^{reference} \(row 3 of a.csv\) not found in .*; correct the name or the root folder.$"
    with pytest.raises(UserError, match=message):
        images.check()
    with pytest.raises(UserError, match=message):
        _ = images[1]


def test_the_number_of_missing_pictures_is_told(folder):
    with pytest.raises(UserError, match=r"^x\.png and 2 more not found"):
        ImageFiles(folder, ["x.png", "y.png", "nowhere/z.png"]).check()


@pytest.mark.parametrize(
    "member", ["../secret.png", "in/../../secret.png", "/etc/secret.png", "C:/secret.png", r"..\a.png"]
)
def test_members_that_leave_their_archive_are_refused(folder, member):
    with zipfile.ZipFile(folder / "all.zip", "a") as archive:
        archive.writestr(member, "whatever")
    images = ImageFiles(folder, [f"all.zip/{member}"])
    for use in (images.missing, images.check, lambda: images[0]):
        with pytest.raises(UserError, match="points out of its archive; name members by their path inside it"):
            use()


def test_a_folder_may_be_called_like_an_archive(folder):
    (folder / "sub").rename(folder / "sub.zip")
    assert ImageFiles(folder, ["sub.zip/1.png"])[0].shape == (3, 12, 16)


@pytest.mark.parametrize("content", [b"", b"PK not really"])
@pytest.mark.parametrize("name", ["bad.zip", "bad.npz"])
def test_damaged_archives_are_told(folder, name, content):
    (folder / name).write_bytes(content)
    images = ImageFiles(folder, [f"{name}/images/0"])
    kind = "zip archive" if name == "bad.zip" else "npz file"
    for use in (images.check, lambda: images[0]):
        with pytest.raises(UserError, match=rf"{name} is no readable {kind}; copy"):
            use()


@pytest.mark.parametrize("name", ["no.zip", "no.npz"])
def test_missing_archives_are_told(folder, name):
    for use in (ImageFiles(folder, [f"{name}/images/0"]).check, lambda: ImageFiles(folder, [f"{name}/images/0"])[0]):
        with pytest.raises(UserError, match=rf"there is no archive .*{name}; correct the path or the root folder"):
            use()


@pytest.mark.parametrize("content", [b"", b"text"])
def test_unreadable_members_are_named_with_their_row(folder, content):
    (folder / "sub/1.png").write_bytes(content)
    with zipfile.ZipFile(folder / "more.zip", "w") as archive:
        archive.writestr("1.png", content)
    images = ImageFiles(folder, ["sub/1.png", "more.zip/1.png"], places=["row 2 of a.csv", "row 3 of a.csv"])
    with pytest.raises(UserError, match=r"^sub/1.png \(row 2 of a.csv\) is truncated, corrupt or no image; replace it"):
        _ = images[0]
    with pytest.raises(UserError, match=r"^more.zip/1.png \(row 3 of a.csv\) is truncated, corrupt"):
        _ = images[1]


def test_a_member_whose_checksum_is_wrong_is_told(folder):
    content = (folder / "all.zip").read_bytes()
    start = content.index(b"IDAT") + 20
    (folder / "all.zip").write_bytes(content[:start] + bytes(8) + content[start + 8 :])
    with pytest.raises(UserError, match=r"^all.zip/in/0.png cannot be read; replace it"):
        _ = ImageFiles(folder, ["all.zip/in/0.png"])[0]


def test_a_damaged_compressed_member_is_told(folder):
    with zipfile.ZipFile(folder / "packed.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.png", b"image " * 1000)
    content = (folder / "packed.zip").read_bytes()
    (folder / "packed.zip").write_bytes(content[:35] + b"\xff" * 8 + content[43:])
    with pytest.raises(UserError, match=r"^packed.zip/0.png cannot be read; replace it"):
        _ = ImageFiles(folder, ["packed.zip/0.png"])[0]


def test_an_encrypted_member_is_told(folder):
    content = bytearray((folder / "all.zip").read_bytes())
    central = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1
    (folder / "all.zip").write_bytes(bytes(content))
    with pytest.raises(UserError, match="is encrypted or compressed in a way that cannot be read"):
        _ = ImageFiles(folder, ["all.zip/in/0.png"])[0]


def test_pickled_objects_are_never_loaded(folder):
    np.savez(folder / "objects.npz", images=np.array([{"a": 1}, None], dtype=object))
    images = ImageFiles(folder, ["objects.npz/images/0"])
    for use in (images.check, lambda: images[0]):
        with pytest.raises(UserError, match="array 'images' of .*objects.npz holds pickled Python objects"):
            use()


def test_arrays_with_nan_are_told(folder):
    np.savez(folder / "nan.npz", images=np.full((1, 4, 4), np.nan))
    with pytest.raises(UserError, match=r"^nan.npz/images/0 has NaN or infinite pixels; repair it"):
        _ = ImageFiles(folder, ["nan.npz/images/0"])[0]

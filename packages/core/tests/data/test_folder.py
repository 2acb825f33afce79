import pytest
from PIL import Image

from medbolt.core.data.folder import FolderDataModule
from medbolt.core.errors import UserError


@pytest.fixture
def files(tmp_path):
    def write(*names: str):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (8, 8), len(name)).save(tmp_path / name, "PNG")
        return tmp_path

    return write


def test_given_splits(files):
    root = files("train/cat/1.png", "train/dog/deep/2.PNG", "valid/cat/3.jpg", "test/dog/4.png", ".hidden/x/1.png")
    (root / "train/cat/notes.txt").touch()
    data = FolderDataModule(root)
    assert data.class_names == ["cat", "dog"]
    assert data.class_counts == [1, 1]
    assert data.dataset("train").ids == ["train/cat/1.png", "train/dog/deep/2.PNG"]
    assert data.dataset("val").ids == ["valid/cat/3.jpg"]
    assert int(data.dataset("test")[0]["target"]) == 1
    assert data.dataset("test")[0]["image"].shape == (3, 8, 8)


def test_drawn_splits_by_group(files):
    root = files(*(f"{kind}/p{i // 2}_{i}.png" for kind in ("cat", "dog") for i in range(20)))
    data = FolderDataModule(root, group=r"/(p\d+)_", fractions=(0.6, 0.2, 0.2))
    splits = [data.dataset(split) for split in ("train", "val", "test")]
    groups = [set(split.groups or ()) for split in splits]
    assert [len(split) for split in splits] == [24, 8, 8]
    assert groups[0] | groups[1] | groups[2] == {f"p{i}" for i in range(10)}
    assert not groups[0] & groups[1] | groups[1] & groups[2] | groups[0] & groups[2]
    assert data.class_counts == [12, 12]


def test_folds(files):
    root = files(*(f"{kind}/{i}.png" for kind in ("cat", "dog") for i in range(6)))
    tests = [set(FolderDataModule(root, folds=3, fold=k).dataset("test").ids) for k in range(3)]
    assert len(set.union(*tests)) == sum(map(len, tests)) == 12


def test_given_class_names_set_the_order(files):
    root = files("train/cat/1.png", "train/dog/2.png")
    assert FolderDataModule(root, class_names=["dog", "cat"]).train_targets.tolist() == [1, 0]


def test_a_group_in_two_splits(files):
    root = files("train/cat/p1_a.png", "test/cat/p1_b.png")
    with pytest.raises(UserError, match="^group 'p1' is in the splits train and test; move all its images"):
        FolderDataModule(root, group="(p[0-9]+)").dataset("train")
    assert len(FolderDataModule(root, group="(p[0-9]+)", allow_group_overlap=True).dataset("train")) == 1


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ([], {}, "has no images; it must hold one folder of images a class"),
        (["1.png", "cat/2.png"], {}, "1.png of .* is in no class folder; move it into one"),
        (["train/1.png"], {}, "train/1.png of .* is in no class folder"),
        (["train/cat/1.png", "other/cat/2.png"], {}, "other/cat/2.png is in split 'other'; splits are called"),
        (["cat/1.png", "dgo/1.png"], {"class_names": ["cat", "dog"]}, r"unknown class 'dgo' \(did you mean 'dog'\?\)"),
        (["cat/1.png"], {"group": "(p[0-9])"}, r"group '\(p\[0-9\]\)' finds nothing in cat/1.png; correct"),
        (["cat/1.png"], {"group": "("}, r"group '\(' is no regular expression"),
    ],
)
def test_bad_folders_are_answered_with_a_sentence(files, names, options, message):
    with pytest.raises(UserError, match=message):
        FolderDataModule(files(*names), **options).dataset("train")


def test_a_missing_folder_and_a_file(tmp_path):
    with pytest.raises(UserError, match="there is no .*nowhere; correct the path"):
        _ = FolderDataModule(tmp_path / "nowhere").class_names
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="is no folder; name the folder that holds the class folders"):
        _ = FolderDataModule(tmp_path / "file").class_names

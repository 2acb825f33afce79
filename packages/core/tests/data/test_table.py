import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from medbolt.core.data.table import TableDataModule
from medbolt.core.errors import UserError


def test_a_whole_table(ten, noise):
    data = TableDataModule(ten, split="split", group="patient", domain="patient", image_size=None, batch_size=2)
    assert data.class_names == ["a", "b"]
    assert data.num_classes == 2
    assert data.class_counts == [3, 3]
    assert data.domain_names == ["p0", "p1", "p2", "p3", "p4"]
    data.setup("fit")
    test = data.dataset("test")
    assert (test.base_size, test.ids, test.groups) == (2, ["8.png", "9.png"], ["p4", "p4"])
    sample = test[1]
    assert (sample["image"].permute(1, 2, 0).numpy() == noise(9)).all()
    assert (int(sample["target"]), int(sample["domain"]), sample["index"]) == (1, 4, 1)
    batch = next(iter(data.val_dataloader()))
    assert batch["image"].shape == (2, 3, 12, 16)
    assert batch["id"] == ["6.png", "7.png"]


def test_counting_reads_no_image(table, tmp_path):
    data = TableDataModule(table(image=["a.png", "b.png"], label=["x", "y"], split=["train", "train"]), split="split")
    for name in ("a.png", "b.png"):
        (tmp_path / name).write_bytes(b"no image")
    assert data.class_counts == [1, 1]
    assert data.train_size == 2
    with pytest.raises(UserError, match=r"a.png \(row 2 of labels.csv\) is truncated, corrupt or no image"):
        data.dataset("train")[0]


def test_worker_processes_load_the_same(ten):
    loaders = [TableDataModule(ten, num_workers=n, batch_size=4).train_dataloader() for n in (0, 2)]
    batches = [torch.cat([batch["image"] for batch in loader]) for loader in loaders]
    assert torch.equal(*batches)


def test_masks_raters_and_text(table, tmp_path):
    path = table(image=["a.png", "b.png"], label=["x", "y"], split=["train", "train"], report=["fine", ""])
    for name, value in (("a_1", 0), ("a_2", 255), ("b_1", 255), ("b_2", 0)):
        Image.new("L", (16, 12), value).save(tmp_path / f"{name}.png")
    lines = path.read_text().splitlines()
    stems = ["stem", "a", "b"]
    path.write_text("\n".join(f"{line},{stem}" for line, stem in zip(lines, stems, strict=True)))
    data = TableDataModule(
        path, mask="{stem}_2.png", raters=["{stem}_1.png", "{stem}_2.png"], text="report", split="split"
    )
    first, second = data.dataset("train")[0], data.dataset("train")[1]
    assert (first["mask"] == 1).all()
    assert first["raters"].shape == (2, 12, 16)
    assert first["raters"].float().mean((1, 2)).tolist() == [0, 1]
    assert second["raters"].float().mean((1, 2)).tolist() == [1, 0]
    assert (first["text"], second["text"]) == ("fine", "")


def test_members_of_a_zip_file_by_pattern(ten, tmp_path):
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for i in range(10):
            archive.write(tmp_path / f"{i}.png", f"{i}.png")
            (tmp_path / f"{i}.png").unlink()
    data = TableDataModule(ten, image="all.zip/{image}", id="image", split="split")
    assert data.dataset("val").ids == ["6.png", "7.png"]
    assert data.dataset("val")[0]["image"].shape == (3, 12, 16)


def test_findings_and_no_labels(table):
    path = table(image=["a.png", "b.png", "c.png"], edema=[1, 0, 1], mass=[0, 0, 1], split=["train", "train", "val"])
    data = TableDataModule(path, label=["edema", "mass"], split="split")
    assert data.class_names == ["edema", "mass"]
    assert data.train_targets.tolist() == [[1, 0], [0, 0]]
    assert data.class_counts == [1, 0]
    with pytest.raises(UserError, match="there are 1 class_names for 2 label columns"):
        _ = TableDataModule(path, label=["edema", "mass"], class_names=["edema"]).class_names
    bare = TableDataModule(path, label=None, split="split")
    assert "target" not in bare.dataset("val")[0]
    with pytest.raises(UserError, match="TableDataModule has no labels"):
        _ = bare.train_targets


def test_drawn_splits_keep_groups_whole_and_use_everything(table):
    path = table(
        image=[f"{i}.png" for i in range(60)], label=["a", "b", "c"] * 20, who=[f"p{i // 3}" for i in range(60)]
    )
    data = TableDataModule(path, group="who", fractions=(0.6, 0.2, 0.2))
    splits = [data.dataset(split) for split in ("train", "val", "test")]
    assert [len(split) for split in splits] == [36, 12, 12]
    assert sorted(name for split in splits for name in split.ids) == sorted(f"{i}.png" for i in range(60))
    assert [len(set(split.groups or ())) for split in splits] == [12, 4, 4]
    assert data.class_counts == [12, 12, 12]
    other = TableDataModule(path, group="who", fractions=(0.6, 0.2, 0.2), seed=1)
    assert other.dataset("test").ids != data.dataset("test").ids


def test_folds_cover_the_table(table):
    path = table(image=[f"{i}.png" for i in range(12)], label=["a", "b"] * 6)
    tests = [TableDataModule(path, folds=3, fold=k).dataset("test").ids for k in range(3)]
    assert sorted(name for ids in tests for name in ids) == sorted(f"{i}.png" for i in range(12))


def test_folds_leave_a_given_test_split_alone(ten):
    rounds = [TableDataModule(ten, split="split", folds=2, fold=k) for k in range(2)]
    assert [r.dataset("test").ids for r in rounds] == [["8.png", "9.png"]] * 2
    assert sorted(rounds[0].dataset("val").ids + rounds[1].dataset("val").ids) == [f"{i}.png" for i in range(8)]


def test_rows_can_be_chosen(ten):
    data = TableDataModule(ten, split="split", where={"label": ["b"], "split": ["train", "test"]})
    assert data.class_names == ["b"]
    assert data.dataset("train").ids == ["1.png", "3.png", "5.png"]
    with pytest.raises(UserError, match="no row of .*labels.csv is left by where"):
        _ = TableDataModule(ten, where={"patient": ["p0"], "split": ["test"]}).class_names


def test_a_torn_group_is_refused_unless_allowed(table):
    path = table(image=["a.png", "b.png"], label=["x", "x"], patient=["ann", "ann"], split=["train", "test"])
    with pytest.raises(
        UserError, match="^patient 'ann' is in the splits train and test; .* or set allow_group_overlap"
    ):
        TableDataModule(path, split="split", group="patient").dataset("train")
    assert len(TableDataModule(path, split="split", group="patient", allow_group_overlap=True).dataset("test")) == 1


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"image": ["a.png", "a.png"]},
            {},
            "row 2 of labels.csv and row 3 of labels.csv have the same id 'a.png'; remove",
        ),
        ({"label": ["x", "nan"]}, {}, "row 3 of labels.csv has no value in column 'label'; fill it in"),
        ({"label": ["x", "z"]}, {"class_names": ["x", "y"]}, "row 3 of labels.csv has the unknown label 'z'"),
        ({"label": ["0", "2"]}, {"class_names": ["x", "y"]}, "row 3 of labels.csv has the unknown label '2'"),
        ({"split": ["train", "vall"]}, {}, r"row 3 of labels.csv is in split 'vall' \(did you mean 'val'\?\)"),
        ({}, {"image": "images"}, r"labels.csv has no column 'images' \(did you mean 'image'\?\)"),
        ({}, {"label": "grade"}, "labels.csv has no column 'grade'; it has 'image', 'label', 'who', 'split'"),
        ({"who": ["ann", ""]}, {"group": "who"}, "row 3 of labels.csv has no value in column 'who'"),
        ({"who": ["ann", ""]}, {"domain": "who"}, "row 3 of labels.csv has no value in column 'who'"),
        ({"image": ["a.png", ""]}, {}, "row 3 of labels.csv has no value in column 'image'"),
        ({}, {"root": "no/where"}, "there is no no/where in"),
        ({}, {"mask": "masks/{image}"}, r"masks/a.png \(row 2 of labels.csv\) and 1 more not found in"),
    ],
)
def test_bad_tables_are_answered_with_a_sentence(table, columns, options, message):
    good = {"image": ["a.png", "b.png"], "label": ["x", "y"], "who": ["ann", "bob"], "split": ["train", "val"]}
    with pytest.raises(UserError, match=message):
        TableDataModule(table(**{**good, **columns}), **{"split": "split", **options}).dataset("train")


def test_missing_images_and_empty_classes_are_told_at_setup(ten, tmp_path):
    with pytest.raises(UserError, match="class 'c' of TableDataModule is without training samples"):
        TableDataModule(ten, split="split", class_names=["a", "b", "c"]).setup("fit")
    with pytest.raises(UserError, match="the val split of TableDataModule is empty; give it samples"):
        TableDataModule(ten, split="split", where={"split": ["train"]}).setup("fit")
    (tmp_path / "4.png").unlink()
    with pytest.raises(UserError, match=r"^4.png \(row 6 of labels.csv\) not found in"):
        TableDataModule(ten, split="split").setup("fit")


def test_a_store_makes_the_images_superfluous(ten, tmp_path):
    from medbolt.core.data.prepare import prepare

    options = {"split": "split", "image_size": 8}
    prepare(TableDataModule(ten, **options), tmp_path / "store", size=8)
    expected = next(iter(TableDataModule(ten, **options).val_dataloader()))
    for i in range(10):
        (tmp_path / f"{i}.png").unlink()
    found = next(iter(TableDataModule(ten, **options, store=tmp_path / "store").val_dataloader()))
    assert torch.equal(found["image"], expected["image"])
    assert found["index"].tolist() == expected["index"].tolist()


@pytest.mark.data
def test_ham10000(shared_data):
    data = TableDataModule(
        shared_data / "ham10000/metadata.csv",
        image="images.zip/{image_id}.jpg",
        label="dx",
        id="image_id",
        group="lesion_id",
        domain="dataset",
        mask="masks.zip/{image_id}.png",
        split="split",
    )
    assert data.class_names == ["akiec", "bcc", "bkl", "df", "mel", "nv", "vasc"]
    assert data.class_counts == [196, 294, 653, 65, 669, 980, 80]
    assert [len(data.dataset(split)) for split in ("train", "val", "test")] == [2937, 449, 822]
    sample = data.dataset("test")[700]
    assert sample["image"].shape == (3, 150, 200)
    assert sample["mask"].unique().tolist() == [0, 1]


@pytest.mark.data
def test_lidc_rows_of_an_array(shared_data):
    data = TableDataModule(
        shared_data / "lidc_nodules/index.csv",
        image="lidc_nodules.npz/images/{row}",
        label=None,
        id="row",
        group="patient_id",
        raters="lidc_nodules.npz/masks/{row}",
        split="split",
    )
    assert len(data.dataset("val")) == 91
    sample = data.dataset("val")[5]
    with np.load(shared_data / "lidc_nodules/lidc_nodules.npz") as arrays:
        assert (sample["raters"].numpy() == arrays["masks"][int(sample["id"])]).all()
        assert (sample["image"][2].numpy() == arrays["images"][int(sample["id"])]).all()


def test_a_list_of_one_label_column_is_refused():
    with pytest.raises(
        ValueError, match=r"label=\['edema'\] is a list for several findings; name a single label column"
    ):
        TableDataModule("labels.csv", label=["edema"])

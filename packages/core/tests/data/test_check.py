import numpy as np
import pytest
from PIL import Image

from medbolt.core.data.check import ManifestCheck, check_manifest
from medbolt.core.errors import UserError


@pytest.fixture
def good(table):
    """Forty different pictures without any fault."""

    def write(**changes):
        columns = {
            "image": [f"{i:02}.png" for i in range(40)],
            "label": ["a", "b"] * 20,
            "group": [f"p{i // 2}" for i in range(40)],
            "split": ["train"] * 24 + ["val"] * 6 + ["test"] * 10,
        }
        return table(**(columns | changes))

    return write


def messages(check: ManifestCheck, severity: str) -> list[str]:
    return [finding.message for finding in check.findings if finding.severity == severity]


def changed(values: list, **changes) -> list:
    return [changes.get(f"at{i}", value) for i, value in enumerate(values)]


def test_nothing_is_found_in_good_data(good):
    check = check_manifest(good())
    assert check.findings == ()
    assert not check.has_errors
    assert check.class_counts.loc["a"].tolist() == [12, 3, 5]
    assert check.class_counts.loc["(all)"].tolist() == [24, 6, 10]
    assert check.examples == {"a": [0, 2, 4, 6, 8, 10], "b": [1, 3, 5, 7, 9, 11]}


def test_missing_and_corrupt_images_do_not_stop_it(good, tmp_path):
    path = good()
    (tmp_path / "03.png").unlink()
    (tmp_path / "05.png").write_bytes(b"")
    (tmp_path / "06.png").write_bytes((tmp_path / "06.png").read_bytes()[:100])
    for workers in (0, 2):
        errors = messages(check_manifest(path, workers=workers), "error")
        assert len(errors) == 3
        assert errors[0].startswith("1 of 40 images not found in ")
        assert errors[0].endswith("'03.png'.")
        assert errors[1].startswith("05.png (row 7 of labels.csv) is truncated, corrupt or no image")
        assert errors[2].startswith("06.png (row 8 of labels.csv) is truncated")


def test_duplicates_within_and_across_splits(good, tmp_path):
    path = good()
    for source, target in (("00", "39"), ("01", "02"), ("05", "38")):
        (tmp_path / f"{target}.png").write_bytes((tmp_path / f"{source}.png").read_bytes())
    picture = Image.open(tmp_path / "10.png").resize((64, 48), Image.Resampling.BILINEAR)
    picture.save(tmp_path / "10.png")
    Image.fromarray((np.asarray(picture) * 0.9).astype(np.uint8)).save(tmp_path / "30.png")
    check = check_manifest(path)
    assert messages(check, "error") == ["2 pairs of images in different splits with the same pixels."]
    assert messages(check, "warning") == [
        "1 pair of images in one split with the same pixels.",
        "1 pair of images in different splits with nearly the same pixels.",
        "3 pairs of equal images with different labels.",
    ]
    assert [finding.pairs for finding in check.findings] == [
        ((0, 39), (5, 38)),
        ((1, 2),),
        ((10, 30),),
        ((0, 39), (1, 2), (5, 38)),
    ]


def test_groups_across_splits(good):
    groups = changed([f"p{i // 2}" for i in range(40)], at30="p0", at31="p0", at39="p1", at12="")
    check = check_manifest(good(group=groups))
    assert messages(check, "error") == ["2 of group in more than one split: 'p0 (train, test)', 'p1 (train, test)'."]
    assert messages(check, "warning") == ["row 14: no group."]


def test_labels(good):
    labels = changed(["a", "b"] * 20, at3="", at4="B", at5="B", at39="nan")
    check = check_manifest(good(label=labels), class_names=["a", "b"])
    assert messages(check, "error") == ["rows 5, 41: no label.", "rows 6, 7: unknown label 'B'."]


def test_labels_may_be_indices_of_the_classes(good):
    check = check_manifest(good(label=["0", "1"] * 20), class_names=["healthy", "sick"])
    assert not check.findings
    errors = messages(
        check_manifest(good(label=changed(["0", "1"] * 20, at3="2")), class_names=["healthy", "sick"]), "error"
    )
    assert errors == ["row 5: unknown label '2'."]


def test_rare_and_absent_classes(good):
    labels = changed(["a"] * 40, at0="rare", at39="late")
    check = check_manifest(good(label=labels))
    assert messages(check, "error") == ["class 'late' has no image in the train split."]
    assert messages(check, "warning") == [
        "class 'late' has no image in the val split.",
        "class 'rare' has only 1 image in the train split.",
        "class 'rare' has no image in the val split.",
        "class 'rare' has no image in the test split.",
    ]
    assert not check_manifest(good(), fewest=12).findings


def test_findings_as_labels(good):
    columns = {"edema": changed(["0", "1"] * 20, at7="2"), "mass": ["1"] + ["0"] * 39}
    path = good(**columns)
    check = check_manifest(path, label=["edema", "mass"])
    assert check.class_counts.loc["edema"].tolist() == [11, 3, 5]
    assert "row 9: unknown edema '2'." in messages(check, "error")
    assert check.examples["mass"] == [0]


def test_findings_are_the_numbers_that_training_takes(good, tmp_path):
    columns = {
        "edema": changed(["0", "1.0"] * 20, at0="0.5", at2="0.51", at4="1e0", at6="1.5", at8="yes"),
        "mass": changed(["0", "1"] * 20, at25="1.0"),
    }
    path = good(**columns)
    (tmp_path / "25.png").write_bytes((tmp_path / "27.png").read_bytes())
    check = check_manifest(path, label=["edema", "mass"])
    assert check.class_counts.loc["edema"].tolist() == [14, 3, 5]
    assert check.examples["edema"] == [1, 2, 3, 4, 5, 7]
    assert messages(check, "error") == ["row 8: unknown edema '1.5'.", "row 10: unknown edema 'yes'."]
    assert messages(check, "warning") == ["1 pair of images in one split with the same pixels."]  # of the same labels


def test_splits(good):
    columns = {"group": [f"p{i}" for i in range(40)], "split": changed(["train"] * 40, at3="tset")}
    check = check_manifest(good(**columns))
    assert messages(check, "error") == ["row 5: 'tset' is no split (did you mean 'test'?); use train, val and test."]
    assert messages(check, "warning") == ["the val split is empty.", "the test split is empty."]


def test_what_cannot_be_checked_is_said(table):
    check = check_manifest(table(image=["a.png", "b.png"]))
    assert messages(check, "warning") == [
        "no split column is named: leakage between splits was not looked for.",
        "no group column is named: patients across splits were not looked for.",
        "no label column is named: labels were not checked.",
    ]
    assert not check.has_errors


def test_duplicate_ids(good):
    names = changed([f"{i:02}.png" for i in range(40)], at5="00.png", at6="00.png")
    assert "rows 2, 7, 8: the same id '00.png'." in messages(check_manifest(good(image=names)), "error")


def test_a_named_column_must_exist(good):
    with pytest.raises(
        UserError, match=r"labels.csv has no column 'patient'; it has 'image', 'label', 'group', 'split'"
    ):
        check_manifest(good(), group="patient")


@pytest.mark.data
@pytest.mark.slow
def test_ham10000_has_one_copy_in_two_splits(shared_data):
    check = check_manifest(
        shared_data / "ham10000/metadata.csv", "images.zip/{image_id}.jpg", label="dx", group="lesion_id", id="image_id"
    )
    assert not check.has_errors
    across = next(finding for finding in check.findings if "different splits" in finding.message)
    ids = check.manifest.texts("image_id")
    assert [(ids[a], ids[b]) for a, b in across.pairs] == [("ISIC_0025226", "ISIC_0030074")]

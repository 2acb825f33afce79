import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from medbolt.core.errors import UserError
from medbolt.core.predictions import Predictions, read_predictions, write_predictions

NAMES = ["healthy", "mild", "severe"]


def frame(n: int = 4, **columns) -> pd.DataFrame:
    probability = np.random.default_rng(0).dirichlet(np.ones(3), n).astype(np.float32)
    values = {"id": [f"img{i}" for i in range(n)], "target": np.arange(n) % 3}
    return pd.DataFrame(values | {f"p_{k}": probability[:, k] for k in range(3)} | columns)


def test_what_is_written_is_what_is_read(tmp_path):
    rows = frame(
        group=["x", None, "y", "y"], domain=[0, 1, None, 1], seed=7, method="elr", dataset="ham", age=[1, 2, 3, 4]
    )
    written = write_predictions(rows, tmp_path / "new" / "t.parquet", NAMES, ["a", "b"], {"epochs": 3, "note": "é"})
    read = read_predictions(tmp_path / "new" / "t.parquet")
    pd.testing.assert_frame_equal(read.frame, written.frame)
    assert read.class_names == tuple(NAMES)
    assert read.domain_names == ("a", "b")
    assert read.run == {"epochs": 3, "note": "é"}
    columns = [
        "id",
        "group",
        "dataset",
        "domain",
        "split",
        "method",
        "seed",
        "target",
        "prediction",
        "p_0",
        "p_1",
        "p_2",
    ]
    assert list(read.frame.columns) == [*columns, "age"]
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "t.parquet"]


def test_parquet_types_are_the_documented_ones(tmp_path):
    write_predictions(frame(), tmp_path / "t.parquet", NAMES)
    types = {field.name: str(field.type).removeprefix("large_") for field in pq.read_schema(tmp_path / "t.parquet")}
    assert {types[name] for name in ("id", "group", "dataset", "split", "method")} == {"string"}
    assert {types[name] for name in ("domain", "seed", "target", "prediction")} == {"int64"}
    assert {types[f"p_{k}"] for k in range(3)} == {"float"}


def test_the_prediction_defaults_to_the_most_probable_class():
    table = Predictions(frame(50), NAMES)
    np.testing.assert_array_equal(table.prediction, table.probability.argmax(1))


def test_groups_give_a_nameless_sample_a_group_of_its_own():
    assert Predictions(frame(), NAMES).groups is None
    groups = Predictions(frame(group=["img1", None, None, "img1"]), NAMES).groups
    assert groups is not None
    assert len(set(groups)) == 3
    assert groups[0] == groups[3]


def test_labelled_leaves_out_samples_without_a_target():
    table = Predictions(frame(target=[0, None, 2, None]), NAMES)
    assert list(table.labelled().frame["id"]) == ["img0", "img2"]
    assert table.labelled().target.dtype == np.int64


def test_a_multilabel_table_has_a_target_a_label(tmp_path):
    rows = pd.DataFrame(
        {"id": ["a", "b"], "p_0": [0.9, 0.8], "p_1": [0.7, 0.1], "target_0": [1, 0], "target_1": [1, 1]}
    )
    write_predictions(rows, tmp_path / "t.parquet", ["oedema", "drusen"])
    table = read_predictions(tmp_path / "t.parquet")
    assert table.multilabel
    np.testing.assert_array_equal(table.target, [[1, 1], [0, 1]])
    np.testing.assert_array_equal(table.prediction, [[1, 1], [1, 0]])


def test_an_empty_table_is_a_table(tmp_path):
    write_predictions(frame(0), tmp_path / "t.parquet", NAMES)
    assert len(read_predictions(tmp_path / "t.parquet")) == 0


def test_half_precision_probabilities_sum_to_one_well_enough():
    rows = frame(200)
    rows[["p_0", "p_1", "p_2"]] = rows[["p_0", "p_1", "p_2"]].astype(np.float16)
    Predictions(rows, NAMES)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"p_0": [0.2, np.nan, 0.1, 0.1]}, "sample 'img1' comes with probabilities that are NaN"),
        ({"p_0": [0.9, 0.9, 0.9, 0.9]}, "4 samples, 'img0' the first, come with probabilities that are not in"),
        ({"p_0": [-3.0, 0.2, 0.2, 0.2]}, "give probabilities, not logits"),
        ({"id": ["a", "b", "a", "c"]}, "sample 'a' comes more than once"),
        ({"id": ["a", None, "b", "c"]}, "row 1 of the prediction table has no id"),
        ({"target": [0, 1, 3, 1]}, "sample 'img2' comes with target 3, which is not among the 3 class_names"),
        ({"target": [0, -1, 2, 1]}, "sample 'img1' comes with target -1"),
        ({"prediction": [0, 1, 2, 9]}, "sample 'img3' comes with prediction 9"),
        ({"domain": [None, 0, 0, 5]}, "3 samples, 'img1' the first, come with domain 0, .* the 0 domain_names"),
        ({"target": ["x", "y", "z", "x"]}, "column 'target' of the prediction table holds other values than Int64"),
        ({"p_3": [0.0, 0.0, 0.0, 0.0]}, "no 'p_3', but the table has"),
    ],
)
def test_a_bad_table_is_refused_in_one_sentence(tmp_path, columns, message):
    with pytest.raises(UserError, match=message) as error:
        write_predictions(frame(**columns), tmp_path / "t.parquet", NAMES)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_the_same_sample_may_come_once_a_seed():
    Predictions(frame(id=["a", "a", "b", "b"], seed=[0, 1, 0, 1]), NAMES)


def test_reading_something_else_names_the_file(tmp_path):
    (tmp_path / "text.parquet").write_text("no parquet")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "foreign.parquet")
    for name, message in (
        ("none", "there is no"),
        ("text", "cannot be read as Parquet"),
        ("foreign", "no class names"),
    ):
        with pytest.raises(UserError, match=message) as error:
            read_predictions(tmp_path / f"{name}.parquet")
        assert f"{name}.parquet" in str(error.value)


def test_a_folder_named_like_a_column_does_not_change_the_table(tmp_path):
    path = tmp_path / "seed=5" / "t.parquet"
    write_predictions(frame(), path, NAMES)
    assert read_predictions(path).frame["seed"].isna().all()


def test_a_folder_that_cannot_be_made_is_a_user_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot write .*choose a writable folder"):
        write_predictions(frame(), tmp_path / "file" / "t.parquet", NAMES)

from pathlib import Path

import pandas as pd
import pytest

from medbolt.core.data.manifest import Manifest
from medbolt.core.data.targets import class_targets, finding_targets, natural_order
from medbolt.core.errors import UserError


def table(**columns: list[str | None]) -> Manifest:
    size = len(next(iter(columns.values())))
    return Manifest(Path("a.csv"), pd.DataFrame(columns, index=range(2, size + 2), dtype=object))


def test_numbers_are_sorted_as_numbers():
    assert natural_order({"10", "9", "-1", "2.5"}) == ["-1", "2.5", "9", "10"]
    assert natural_order({"10", "9", "nv"}) == ["10", "9", "nv"]


def test_classes_are_those_that_occur():
    targets, names = class_targets(table(dx=["nv", "mel", "nv"]), "dx")
    assert (targets.tolist(), names) == ([1, 0, 1], ["mel", "nv"])


def test_given_names_set_the_order():
    targets, names = class_targets(table(dx=["nv", "mel"]), "dx", ["nv", "bcc", "mel"])
    assert (targets.tolist(), names) == ([0, 2], ["nv", "bcc", "mel"])


def test_labels_may_be_indices_of_given_names():
    assert class_targets(table(dx=["2", "0"]), "dx", ["nv", "bcc", "mel"])[0].tolist() == [2, 0]


def test_names_that_are_numbers_are_names_not_indices():
    assert class_targets(table(grade=["2", "1"]), "grade", ["1", "2"])[0].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            ["nv", "mell"],
            r"row 3 of a.csv has the unknown label 'mell' in column 'dx' \(did you mean 'mel'\?\); correct",
        ),
        (["0", "3"], "row 3 of a.csv has the unknown label '3' in column 'dx'; correct it or class_names"),
        (["nv", None], "row 3 of a.csv has no value in column 'dx'"),
    ],
)
def test_labels_that_cannot_be(labels, message):
    with pytest.raises(UserError, match=message):
        class_targets(table(dx=labels), "dx", ["mel", "nv", "bcc"])


def test_findings():
    targets = finding_targets(table(edema=["1", "0", "0.25"], mass=["0", "1.0", "0"]), ["mass", "edema"])
    assert targets.tolist() == [[0, 1], [1, 0], [0, 0.25]]


@pytest.mark.parametrize("label", ["-1", "2", "yes", "inf"])
def test_findings_that_cannot_be(label):
    with pytest.raises(
        UserError, match=rf"^row 3 of a.csv has the label '{label}' in column 'mass'; findings are 0 or 1"
    ):
        finding_targets(table(mass=["0", label]), ["mass"])


def test_an_empty_finding():
    with pytest.raises(UserError, match="row 2 of a.csv has no value in column 'mass'"):
        finding_targets(table(mass=[None]), ["mass"])

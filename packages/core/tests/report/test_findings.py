import numpy as np
import pytest

from medbolt.core.report import DataCard
from medbolt.core.report.findings import findings
from medbolt.core.report.numbers import Numbers

TARGET = np.arange(1200) % 3
GROUPS = [f"p{i}" for i in range(1200)]


def titles(table, card=None) -> list[str]:
    return [finding.title for finding in findings(Numbers(table, 20), card)]


def calibrated(make_table, target=TARGET, **columns):
    """The probabilities of the model of ``make_table`` are its posteriors at skill 1."""
    return make_table(target=target, skill=1.0, **columns)


def test_a_sound_table_has_none(make_table):
    assert titles(calibrated(make_table, group=GROUPS)) == []


def test_missing_groups_are_noted(make_table):
    assert titles(calibrated(make_table)) == ["No groups"]


def test_a_model_that_knows_one_class_has_collapsed(make_table):
    found = findings(Numbers(make_table(target=TARGET, prediction=1, group=GROUPS), 20), None)
    text = {finding.title: finding.text for finding in found}
    assert "100% of the predictions are 'mild', which is 33% of the samples" in text["Collapse"]
    assert "'healthy', 'severe'" in text["Never predicted"]


def test_a_common_class_is_no_collapse(make_table):
    target = np.array([0] * 950 + [1] * 25 + [2] * 25)
    assert "Collapse" not in titles(make_table(target=target, skill=50.0))


def test_a_class_that_the_test_set_lacks_is_named(make_table):
    found = findings(Numbers(make_table(target=[0, 1] * 300), 20), None)
    assert any("No test sample is 'severe'" in finding.text for finding in found)


def test_few_samples_are_counted_and_make_strata(make_table):
    found = findings(Numbers(make_table(target=[0, 1] * 300 + [2] * 7), 20), None)
    text = {finding.title: finding.text for finding in found}
    assert "severe (7)" in text["Few samples"]
    assert "The smallest class has 7 samples" in text["Stratified intervals"]


@pytest.mark.parametrize(("power", "title"), [(6.0, "Overconfident"), (0.3, "Underconfident")])
def test_wrong_confidence_is_named(make_table, power, title):
    table = calibrated(make_table, group=GROUPS)
    columns = [f"p_{k}" for k in range(3)]
    sharpened = table.frame[columns].to_numpy(float) ** power
    table.frame[columns] = (sharpened / sharpened.sum(1, keepdims=True)).astype("float32")
    assert titles(table) == [title]


def test_the_calibration_of_few_samples_is_noted(make_table):
    assert "Calibration" in titles(calibrated(make_table, target=np.arange(300) % 3))


def test_leakage_comes_first(make_table):
    card = DataCard("d", ("healthy", "mild", "severe"), {}, shared_ids=2, shared_groups=3)
    found = findings(Numbers(calibrated(make_table), 20), card)
    assert [finding.title for finding in found] == ["Leakage", "Leakage", "No groups"]
    assert "2 samples are in the training and in the test set" in found[0].text
    assert "3 groups" in found[1].text


def test_labels_can_be_checked(multilabel):
    assert titles(multilabel) == ["No groups"]

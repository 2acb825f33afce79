import numpy as np
import pytest
from sklearn import metrics

from medbolt.core import stats
from medbolt.core.report.numbers import Numbers


def test_estimates_equal_scikit_learn(make_table):
    table = make_table(run={"task": "ordinal"})
    overall = {name: interval.estimate for name, interval in Numbers(table, 50).overall().items()}
    target, prediction, probability = table.target, table.prediction, table.probability
    assert overall == pytest.approx(
        {
            "Balanced accuracy": metrics.balanced_accuracy_score(target, prediction),
            "Macro AUROC": metrics.roc_auc_score(target, probability, multi_class="ovr"),
            "Accuracy": metrics.accuracy_score(target, prediction),
            "Quadratic kappa": metrics.cohen_kappa_score(target, prediction, weights="quadratic"),
            "Calibration error": stats.calibration_error(target, probability),
            "Brier score": metrics.brier_score_loss(target, probability, scale_by_half=False),
        },
        abs=1e-6,
    )


def test_kappa_is_for_ordered_classes_only(make_table):
    assert "Quadratic kappa" not in Numbers(make_table(), 50).overall()


def test_intervals_draw_whole_groups(make_table):
    groups = [f"patient{i // 10}" for i in range(600)]
    table = make_table(target=np.repeat(np.arange(60) % 3, 10), group=groups)
    interval = Numbers(table, 200).overall()["Accuracy"]
    assert interval == stats.bootstrap_interval(
        stats.accuracy, table.target, table.prediction, groups=groups, replicates=200
    )


def test_few_units_in_a_class_make_strata(make_table):
    target = np.array([0] * 300 + [1] * 300 + [2] * 9)
    assert Numbers(make_table(target=target), 50).stratified
    assert not Numbers(make_table(target=[*target, 2]), 50).stratified
    groups = [*(f"a{i}" for i in range(600)), *["one patient"] * 10]
    assert Numbers(make_table(target=[*target, 2], group=groups), 50).stratified
    table = make_table(target=target)
    assert Numbers(table, 50).overall()["Balanced accuracy"] == stats.bootstrap_interval(
        stats.balanced_accuracy, table.target, table.prediction, stratified=True, replicates=50
    )


def test_rows_by_class_equal_scikit_learn(make_table):
    table = make_table()
    rows = Numbers(table, 50).by_class()
    truth = table.target == 1
    assert [row.name for row in rows] == ["healthy", "mild", "severe"]
    assert rows[1].samples == truth.sum()
    assert rows[1].predictions == (table.prediction == 1).sum()
    assert rows[1].recall.estimate == pytest.approx(metrics.recall_score(truth, table.prediction == 1))
    assert rows[1].precision.estimate == pytest.approx(metrics.precision_score(truth, table.prediction == 1))
    assert rows[1].recall.low < rows[1].recall.estimate < rows[1].recall.high


def test_auroc_of_a_class_has_delong_s_interval_unless_there_are_groups(make_table):
    table = make_table()
    truth, score = table.target == 1, table.probability[:, 1]
    assert Numbers(table, 50).by_class()[1].auroc == stats.delong_interval(truth, score)
    grouped = Numbers(make_table(group=[f"p{i // 2}" for i in range(600)]), 50).by_class()[1].auroc
    assert grouped.estimate == pytest.approx(stats.auroc(truth, score))
    assert grouped != stats.delong_interval(truth, score)


def test_what_is_undefined_is_none_and_what_has_no_interval_has_no_ends(make_table):
    rows = Numbers(make_table(target=[0] * 50 + [1] * 50), 50).by_class()
    assert rows[2].samples == 0
    assert rows[2].recall is None
    assert rows[2].auroc is None
    alone = Numbers(make_table(target=[0] * 50 + [1] * 50 + [2]), 50).by_class()[2]
    assert np.isnan(alone.recall.low)
    assert alone.auroc.estimate <= 1


def test_domains_are_sorted_by_balanced_accuracy(make_table):
    names = ("old", "new", "empty", "broken")
    target = np.arange(600) % 3
    domain = np.repeat([0, 1, 3], 200)
    table = make_table(target=target, domain=domain, domain_names=names)
    table.frame.loc[400:, "prediction"] = 0
    rows = Numbers(table, 50).by_domain()
    assert rows[0].name == "broken"
    assert rows[0].metrics["Balanced accuracy"].estimate == pytest.approx(1 / 3)
    assert {row.name for row in rows} == {"old", "new", "broken"}
    assert [row.samples for row in rows] == [200] * 3
    scores = [row.metrics["Balanced accuracy"].estimate for row in rows]
    assert scores == sorted(scores)


def test_a_domain_may_lack_classes(make_table):
    target = np.array([0, 1] * 100 + [0, 1, 2] * 100)
    table = make_table(target=target, domain=[0] * 200 + [1] * 300, domain_names=("a", "b"))
    rows = {row.name: row for row in Numbers(table, 50).by_domain()}
    assert (rows["a"].classes, rows["b"].classes) == (2, 3)
    part = table.where(np.arange(500) < 200)
    assert rows["a"].metrics["Balanced accuracy"].estimate == pytest.approx(
        metrics.recall_score(part.target, part.prediction, average=None, labels=[0, 1]).mean()
    )


def test_one_domain_needs_no_table(make_table):
    assert Numbers(make_table(), 50).by_domain() == []
    assert Numbers(make_table(domain=0, domain_names=("a",)), 50).by_domain() == []


def test_the_surest_errors_come_first(make_table):
    table = make_table()
    rows = Numbers(table, 50).confident_errors(most=5)
    wrong = table.frame[table.prediction != table.target]
    expected = wrong[["p_0", "p_1", "p_2"]].max(axis=1).sort_values(ascending=False, kind="stable").index[:5]
    assert rows.tolist() == expected.tolist()
    assert len(Numbers(make_table(skill=100.0), 50).confident_errors()) == 0


def test_labels_are_counted_one_by_one(multilabel):
    numbers = Numbers(multilabel, 50)
    assert set(numbers.overall()) == {"Macro AUROC", "Brier score"}
    assert numbers.overall()["Macro AUROC"].estimate == pytest.approx(
        metrics.roc_auc_score(multilabel.target, multilabel.probability)
    )
    row = numbers.by_class()[2]
    assert row.samples == multilabel.target[:, 2].sum()
    assert row.recall.estimate == pytest.approx(
        metrics.recall_score(multilabel.target[:, 2], multilabel.prediction[:, 2])
    )

import pytest
import torch
from sklearn.metrics import roc_auc_score

from medbolt.core import classification_metrics
from medbolt.core.metrics.auroc import MacroAUROC, class_auroc
from medbolt.core.stats import macro_auroc

GENERATOR = torch.Generator().manual_seed(5)
TARGET = torch.tensor([0, 2, 2, 0, 2, 0, 0, 2])  # class 1 is absent
PROBABILITY = (torch.rand(8, 3, generator=GENERATOR) + 0.5 * torch.eye(3)[TARGET]).softmax(1)


def test_absent_classes_are_left_out_as_in_the_report():
    value = classification_metrics("multiclass", 3)(PROBABILITY, TARGET)["auroc"]
    areas = [roc_auc_score(label == TARGET, PROBABILITY[:, label]) for label in (0, 2)]
    assert value == pytest.approx(sum(areas) / 2)
    assert value == pytest.approx(macro_auroc(TARGET, PROBABILITY))
    assert class_auroc("multiclass", PROBABILITY, TARGET, 3).isnan().tolist() == [False, True, False]


def test_labels_that_all_or_none_have_are_left_out():
    target = torch.stack([TARGET > 0, torch.ones(8).bool(), torch.zeros(8).bool()], 1).long()
    value = classification_metrics("multilabel", 3)(PROBABILITY, target)["auroc"]
    assert value == pytest.approx(roc_auc_score(TARGET > 0, PROBABILITY[:, 0]))


def test_without_any_curve_it_is_undefined():
    metric = MacroAUROC("binary", 2)
    metric.update(torch.tensor([0.2, 0.9]), torch.tensor([1, 1]))
    assert metric.compute().isnan()
    assert classification_metrics("multiclass", 3)(PROBABILITY, torch.zeros(8).long())["auroc"].isnan()


def test_batches_are_one_set():
    metric = MacroAUROC("multiclass", 3)
    for rows in torch.arange(8).split(3):
        metric.update(PROBABILITY[rows], TARGET[rows])
    assert metric.compute() == pytest.approx(macro_auroc(TARGET, PROBABILITY))

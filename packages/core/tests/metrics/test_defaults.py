import pytest
import torch
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    balanced_accuracy_score,
    cohen_kappa_score,
    f1_score,
    roc_auc_score,
)

from medbolt.core import classification_metrics
from medbolt.core.stats import calibration_error

GENERATOR = torch.Generator().manual_seed(3)
TARGET = torch.randint(0, 4, (300,), generator=GENERATOR)
PROBABILITY = (torch.rand(300, 4, generator=GENERATOR) + torch.eye(4)[TARGET]).softmax(1)


def test_ordinal_metrics_equal_scikit_learn():
    values = classification_metrics("ordinal", 4)(PROBABILITY, TARGET)
    predicted = PROBABILITY.argmax(1)
    assert values["accuracy"] == pytest.approx(accuracy_score(TARGET, predicted))
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(TARGET, predicted))
    assert values["auroc"] == pytest.approx(roc_auc_score(TARGET, PROBABILITY, multi_class="ovr"), abs=1e-6)
    assert values["qwk"] == pytest.approx(cohen_kappa_score(TARGET, predicted, weights="quadratic"), abs=1e-6)
    assert 0 < values["ece"] < 1


def test_binary_metrics_equal_scikit_learn():
    target, probability = (TARGET > 1).long(), PROBABILITY[:, 2:].sum(1)
    values = classification_metrics("binary", 2)(probability, target)
    predicted = probability > 0.5
    assert values["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(target, predicted))
    assert values["auroc"] == pytest.approx(roc_auc_score(target, probability))
    assert values["average_precision"] == pytest.approx(average_precision_score(target, probability))
    assert values["ece"] == pytest.approx(calibration_error(target, torch.stack([1 - probability, probability], 1)))


def test_multilabel_metrics_equal_scikit_learn():
    target = (torch.rand(300, 4, generator=torch.Generator().manual_seed(1)) < 0.3).long()
    probability = (PROBABILITY + 0.2 * target).clamp(0, 1)
    values = classification_metrics("multilabel", 4)(probability, target)
    assert values["auroc"] == pytest.approx(roc_auc_score(target, probability, average="macro"))
    assert values["average_precision"] == pytest.approx(average_precision_score(target, probability, average="macro"))
    each = [balanced_accuracy_score(target[:, k], probability[:, k] > 0.5) for k in range(4)]
    assert values["balanced_accuracy"] == pytest.approx(sum(each) / 4)
    assert values["f1"] == pytest.approx(f1_score(target, probability > 0.5, average="macro"))

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score

from medbolt.core import Breakdown

GENERATOR = torch.Generator().manual_seed(3)
TARGET = torch.randint(0, 3, (200,), generator=GENERATOR)
DOMAIN = torch.randint(0, 2, (200,), generator=GENERATOR)
PROBABILITY = (torch.rand(200, 3, generator=GENERATOR) + torch.eye(3)[TARGET] * (1 - DOMAIN[:, None])).softmax(1)
NAMES = ["a", "b", "c"]


def test_a_domain_of_a_class_s_name_does_not_hide_it():
    plain, clashing = (Breakdown("multiclass", NAMES, names) for names in (["x", "y"], ["c", "a"]))
    for metric in (plain, clashing):
        metric.update(PROBABILITY, TARGET, DOMAIN)
    plain, clashing = plain.compute(), clashing.compute()
    assert clashing["auroc/a"] == plain["auroc/a"]
    assert clashing["auroc/domain a"] == plain["auroc/y"] != plain["auroc/a"]


def test_views_equal_scikit_learn_and_name_the_worst_domain():
    metric = Breakdown("multiclass", NAMES, ["good", "bad", "empty"])
    for part in (slice(0, 70), slice(70, 200)):
        metric.update(PROBABILITY[part], TARGET[part], DOMAIN[part])
    values = metric.compute()
    predicted = PROBABILITY.argmax(1)
    assert values["recall/b"] == pytest.approx(recall_score(TARGET, predicted, average=None)[1])
    assert values["auroc/c"] == pytest.approx(roc_auc_score(TARGET == 2, PROBABILITY[:, 2]))
    bad = DOMAIN == 1
    assert values["balanced_accuracy/bad"] == pytest.approx(balanced_accuracy_score(TARGET[bad], predicted[bad]))
    assert (
        values["balanced_accuracy/worst_domain"] == values["balanced_accuracy/bad"] < values["balanced_accuracy/good"]
    )
    assert not [name for name in values if name.endswith("/empty")]


def test_a_class_without_samples_is_left_out():
    metric = Breakdown("multiclass", NAMES)
    metric.update(PROBABILITY[TARGET != 1], TARGET[TARGET != 1])
    values = metric.compute()
    assert "recall/b" not in values
    assert "auroc/b" not in values
    assert "recall/a" in values


def test_binary_and_multilabel():
    binary = Breakdown("binary", ["healthy", "ill"], ["x"])
    positive = (TARGET > 0).long()
    binary.update(1 - PROBABILITY[:, 0], positive, torch.zeros(200, dtype=torch.int64))
    values = binary.compute()
    assert values["auroc/ill"] == pytest.approx(roc_auc_score(positive, 1 - PROBABILITY[:, 0]))
    assert values["auroc/x"] == pytest.approx(values["auroc/ill"].item())

    labels = (torch.rand(200, 3, generator=torch.Generator().manual_seed(1)) < 0.4).long()
    multilabel = Breakdown("multilabel", NAMES)
    multilabel.update(PROBABILITY, labels)
    assert multilabel.compute()["auroc/a"] == pytest.approx(roc_auc_score(labels[:, 0], PROBABILITY[:, 0]))


def test_a_domain_of_one_class_is_not_the_worst_by_a_curve_that_it_lacks():
    metric = Breakdown("multiclass", ["a", "b"], ["one", "both"])
    probability = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    metric.update(probability, torch.tensor([0, 0, 0, 1]), torch.tensor([0, 0, 1, 1]))
    values = metric.compute()
    assert "auroc/one" not in values
    assert values["auroc/both"] == values["auroc/worst_domain"] == 1

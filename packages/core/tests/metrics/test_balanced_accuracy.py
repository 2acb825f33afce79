import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, recall_score

from medbolt.core import BalancedAccuracy, ClassRecall


def test_equals_scikit_learn_over_batches():
    generator = torch.Generator().manual_seed(0)
    scores, target = torch.rand(200, 4, generator=generator), torch.randint(0, 4, (200,), generator=generator)
    balanced, recall = BalancedAccuracy(4), ClassRecall(4)
    for part in range(0, 200, 64):
        balanced.update(scores[part : part + 64], target[part : part + 64])
        recall.update(scores[part : part + 64], target[part : part + 64])
    predicted = scores.argmax(1)
    assert balanced.compute() == pytest.approx(balanced_accuracy_score(target, predicted))
    assert recall.compute().tolist() == pytest.approx(recall_score(target, predicted, average=None).tolist())


def test_a_class_that_is_predicted_but_absent_does_not_count():
    metric = BalancedAccuracy(3)
    metric.update(torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1]))
    assert metric.compute() == pytest.approx(0.75)


def test_reset_forgets():
    metric = BalancedAccuracy(2)
    metric.update(torch.tensor([1]), torch.tensor([0]))
    metric.reset()
    metric.update(torch.tensor([1]), torch.tensor([1]))
    assert metric.compute() == 1

import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from medbolt.longtail.posthoc.selection import balanced_accuracies, best_by_balanced_accuracy


def test_agrees_with_scikit_learn_also_where_a_class_is_missing():
    target = torch.tensor([0, 0, 0, 1, 3, 3])
    predictions = torch.randint(0, 4, (5, 6), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = [balanced_accuracy_score(target, prediction) for prediction in predictions]
    assert balanced_accuracies(predictions, target, 4).tolist() == pytest.approx(expected)
    assert best_by_balanced_accuracy(predictions, target, 4) == max(range(5), key=lambda k: expected[k])


def test_of_equals_it_takes_the_first():
    predictions = [torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([0, 1])]
    assert best_by_balanced_accuracy(predictions, torch.tensor([0, 1]), 2) == 1

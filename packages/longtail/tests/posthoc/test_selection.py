import pytest
import torch
from sklearn.metrics import balanced_accuracy_score

from medbolt.core import UserError
from medbolt.longtail.posthoc.selection import accuracies, best_by_balanced_accuracy


def test_agrees_with_scikit_learn_also_where_a_class_is_missing():
    target = torch.tensor([0, 0, 0, 1, 3, 3])
    predictions = torch.randint(0, 4, (5, 6), generator=torch.Generator().manual_seed(0))
    with pytest.warns(UserWarning, match="not in y_true"):
        expected = [balanced_accuracy_score(target, prediction) for prediction in predictions]
    assert accuracies(predictions, target, 4).tolist() == pytest.approx(expected)
    assert best_by_balanced_accuracy(predictions, target, 4) == max(range(5), key=lambda k: expected[k])


def test_with_a_prior_it_is_the_accuracy_under_it():
    target, prediction = torch.tensor([0, 0, 1, 1]), torch.tensor([0, 1, 1, 1])  # recalls 1/2 and 1
    assert accuracies([prediction], target, 3, [3.0, 1.0, 4.0]).item() == pytest.approx(0.625)
    with pytest.raises(UserError, match="no validation sample is of a class that test_prior has"):
        accuracies([prediction], target, 3, [0.0, 0.0, 1.0])


def test_of_equals_it_takes_the_first():
    predictions = [torch.tensor([1, 1]), torch.tensor([0, 1]), torch.tensor([0, 1])]
    assert best_by_balanced_accuracy(predictions, torch.tensor([0, 1]), 2) == 1

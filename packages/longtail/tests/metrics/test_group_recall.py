import pytest
import torch
from sklearn.metrics import f1_score, recall_score

from medbolt.longtail import ClassGroups, GroupF1, GroupRecall

each_average = pytest.mark.parametrize("average", ["class", "group"])
each_kind = pytest.mark.parametrize(("kind", "score"), [(GroupRecall, recall_score), (GroupF1, f1_score)])


@each_kind
@each_average
def test_agrees_with_a_loop_over_classes(kind, score, average, scores, target, groups, fed, by_group):
    predicted = scores.argmax(1)
    values = [score(target == c, predicted == c, zero_division=0) for c in range(6)]
    found = fed(kind(6, groups, average), scores, target)
    assert found == pytest.approx(by_group(values, average), abs=1e-6)


@each_kind
def test_takes_classes_as_well_as_scores(kind, score, scores, target, groups, fed):
    assert fed(kind(6, groups), scores, target) == fed(kind(6, groups), scores.argmax(1), target)


@each_kind
def test_a_batch_of_none_and_classes_that_do_not_occur(kind, score):
    metric = kind(3, ClassGroups((0,), (1,), (2,)))
    metric.update(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    metric.update(torch.tensor([2]), torch.tensor([0]))
    found = metric.compute()
    assert found["head"] == 0
    assert found["medium"].isnan()
    assert found["tail"].isnan()
    assert found["average"] == 0


@each_kind
@pytest.mark.parametrize(
    ("groups", "average"), [(ClassGroups((0,), (), (3,)), "class"), (ClassGroups((0,), (), ()), "micro")]
)
def test_classes_that_there_are_not_and_unknown_averages_are_refused(kind, score, groups, average):
    with pytest.raises(ValueError, match="num_classes=3|average must be"):
        kind(3, groups, average)

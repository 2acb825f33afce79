import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from medbolt.longtail import ClassGroups, GroupAUROC, GroupAveragePrecision, class_auroc, class_average_precision

KINDS = [(GroupAUROC, roc_auc_score), (GroupAveragePrecision, average_precision_score)]
each_kind = pytest.mark.parametrize(("kind", "score"), KINDS)


@each_kind
@pytest.mark.parametrize("average", ["class", "group"])
def test_agrees_with_a_loop_over_classes(kind, score, average, scores, target, groups, fed, by_group):
    values = [score((target == c).numpy(), scores[:, c].numpy()) for c in range(5)]
    assert fed(kind(6, groups, average), scores, target) == pytest.approx(by_group(values, average), abs=1e-6)


@each_kind
def test_several_labels_a_sample(kind, score, scores, groups, fed, by_group):
    labels = torch.randint(0, 2, (60, 6), generator=torch.Generator().manual_seed(2))
    labels[:, 5] = 0
    values = [score(labels[:, c].numpy(), scores[:, c].numpy()) for c in range(5)]
    assert fed(kind(6, groups), scores, labels) == pytest.approx(by_group(values, "class"), abs=1e-6)


def test_ties_throughout_are_chance():
    scores, target = torch.zeros(10, 2), torch.tensor([0] * 8 + [1] * 2)
    assert class_auroc(scores, target).tolist() == [0.5, 0.5]
    assert class_average_precision(scores, target).tolist() == pytest.approx([0.8, 0.2])


def test_classes_that_no_or_every_sample_has():
    scores, target = torch.randn(4, 3), torch.tensor([1, 1, 1, 1])
    assert class_auroc(scores, target).isnan().all()
    precision = class_average_precision(scores, target)
    assert precision[1] == 1
    assert precision[[0, 2]].isnan().all()


def test_large_counts_do_not_lose_precision():
    """Sums of ranks beyond 2**24 and 2**31 stay exact."""
    generator = torch.Generator().manual_seed(0)
    target = (torch.rand(70_000, generator=generator) < 0.5).long()
    score = torch.rand(70_000, generator=generator)
    found = class_auroc(torch.stack([1 - score, score], 1), target)
    assert float(found[1]) == pytest.approx(roc_auc_score(target.numpy(), score.numpy()), abs=1e-12)


@each_kind
def test_half_precision_scores_and_one_sample(kind, score):
    metric = kind(2, ClassGroups((0,), (), (1,)))
    metric.update(torch.tensor([[0.3, 0.7]], dtype=torch.bfloat16), torch.tensor([1]))
    assert metric.compute()["head"].isnan()
    with pytest.raises(ValueError, match="num_classes=2"):
        kind(2, ClassGroups((0,), (), (2,)))

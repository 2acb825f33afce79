import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from medbolt.longtail import ClassGroups, GroupRanking, class_auroc, class_average_precision

SCORES = {"auroc": roc_auc_score, "average_precision": average_precision_score}
each_score = pytest.mark.parametrize("name", SCORES)


def of(name, found):
    return {key.removeprefix(f"{name}/"): value for key, value in found.items() if key.startswith(f"{name}/")}


@each_score
@pytest.mark.parametrize("average", ["class", "group"])
def test_agrees_with_a_loop_over_classes(name, average, scores, target, groups, fed, by_group):
    values = [SCORES[name]((target == c).numpy(), scores[:, c].numpy()) for c in range(5)]
    found = fed(GroupRanking(6, groups, average), scores, target)
    assert of(name, found) == pytest.approx(by_group(values, average), abs=1e-6)


@each_score
def test_several_labels_a_sample(name, scores, groups, fed, by_group):
    labels = torch.randint(0, 2, (60, 6), generator=torch.Generator().manual_seed(2))
    labels[:, 5] = 0
    values = [SCORES[name](labels[:, c].numpy(), scores[:, c].numpy()) for c in range(5)]
    found = fed(GroupRanking(6, groups), scores, labels)
    assert of(name, found) == pytest.approx(by_group(values, "class"), abs=1e-6)


def test_the_scores_given_stay_as_they_are(scores, target, groups):
    before, metric = scores.clone(), GroupRanking(6, groups)
    metric.update(scores, target)
    first = metric.compute()
    metric._computed = None
    assert {k: float(v) for k, v in metric.compute().items()} == {k: float(v) for k, v in first.items()}
    column = scores[:, :1].clone()
    class_auroc(column, (target == 0)[:, None])
    assert torch.equal(scores, before)
    assert torch.equal(column, before[:, :1])


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


def test_half_precision_scores_and_one_sample():
    metric = GroupRanking(2, ClassGroups((0,), (), (1,)))
    metric.update(torch.tensor([[0.3, 0.7]], dtype=torch.bfloat16), torch.tensor([1]))
    found = metric.compute()
    assert found["auroc/head"].isnan()
    assert found["average_precision/head"].isnan()
    assert found["average_precision/tail"] == 1


def test_classes_that_there_are_not_are_refused():
    with pytest.raises(ValueError, match="num_classes=2"):
        GroupRanking(2, ClassGroups((0,), (), (2,)))


def test_a_score_that_is_not_a_number_leaves_its_class_without_value():
    scores, target = torch.rand(12, 3), torch.arange(12) % 3
    whole = class_auroc(scores, target)
    scores[5, 1] = torch.nan
    for found in (class_auroc(scores, target), class_average_precision(scores, target)):
        assert found.isnan().tolist() == [False, True, False]
    torch.testing.assert_close(class_auroc(scores, target)[[0, 2]], whole[[0, 2]])
    assert class_auroc(torch.full((12, 3), torch.nan), target).isnan().all()

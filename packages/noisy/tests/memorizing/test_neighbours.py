import pytest
import torch
from torch.nn.functional import cosine_similarity

import medbolt.noisy.memorizing.neighbours as module
from medbolt.noisy.memorizing.neighbours import balanced_votes, class_weights, relabel_and_select


def points(size=40, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, 3, generator=generator), torch.randint(0, 4, (size,), generator=generator)


@pytest.mark.parametrize("chunk", [7, 1024])
@pytest.mark.parametrize("unknown", [0, 5])
def test_votes_equal_those_counted_one_by_one(chunk, unknown, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK", chunk)
    features, label = points()
    label[:unknown] = -1
    found = balanced_votes(features, label, num_classes=5, neighbours=6)
    for i in range(len(label)):
        others = [j for j in range(len(label)) if j != i and label[j] >= 0]
        cosine = {j: float(cosine_similarity(features[i], features[j], dim=0)) for j in others}
        votes = [0.0] * 5
        for j in sorted(others, key=cosine.__getitem__)[-6:]:
            votes[label[j]] += max(cosine[j], 0.0)
        frequency = [max(int((label == c).sum()), 1) for c in range(5)]
        assert found[i].tolist() == pytest.approx([v / n for v, n in zip(votes, frequency, strict=True)], abs=1e-5)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_few_samples_have_few_neighbours(size):
    features, label = points(size)
    votes = balanced_votes(features, label, 4, neighbours=200)
    assert votes.isfinite().all()
    _, kept = relabel_and_select(torch.full((size, 4), 0.25), features, label, 0.9, 1.0, 200)
    assert kept.any()


def test_two_clusters_correct_each_other_s_labels():
    features = torch.tensor([[1.0, 0.0]] * 10 + [[0.0, 1.0]] * 10) + 0.01 * torch.randn(20, 2)
    truth = torch.tensor([0] * 10 + [1] * 10)
    given = truth.clone()
    given[[0, 1, 10, 11]] = 1 - given[[0, 1, 10, 11]]
    p = torch.full((20, 2), 0.5)
    p[0], p[5] = torch.tensor([0.95, 0.05]), torch.tensor([0.91, 0.09])
    label, kept = relabel_and_select(p, features, given, 0.9, 1.0, neighbours=5)
    assert label.tolist() == [0] + [-1] * 19  # sample 5 is sure of the label that it has
    assert kept.tolist() == [i not in (1, 10, 11) for i in range(20)]
    label, _ = relabel_and_select(p, features, given, 1.1, 1.0, neighbours=5)
    assert (label == -1).all()


def test_a_low_threshold_selects_all_and_nothing_selected_is_all():
    features, given = points()
    p = torch.full((40, 4), 0.25)
    assert relabel_and_select(p, features, given, 0.9, 0.0, 6)[1].all()
    one_each = torch.tensor([0, 1])  # the only neighbour is of the other class
    assert relabel_and_select(p[:2, :2], torch.ones(2, 3), one_each, 0.9, 1.0, 6)[1].tolist() == [True, True]


def test_features_that_are_no_numbers_select_nobody():
    features, given = points()
    features[3] = torch.nan
    _, kept = relabel_and_select(torch.full((40, 4), 0.25), features, given, 0.9, 1.0, 6)
    assert not kept[3]
    assert kept.any()


@pytest.mark.parametrize("balanced", [True, False])
def test_weights_have_mean_one_and_give_each_class_its_part(balanced):
    given = torch.tensor([0] * 10 + [1] * 4 + [2] * 3 + [-1])
    label = torch.full((18,), -1)
    label[0] = 1
    kept = torch.arange(18) % 2 == 0
    kept[14:17] = False
    weight = class_weights(label, kept, given, num_classes=4, balanced=balanced)
    assert float(weight[:17].mean()) == pytest.approx(1)
    assert weight[17] == 1
    assert not weight[:17][~kept[:17]].any()
    sums = [float(weight[kept & (torch.where(label >= 0, label, given) == c)].sum()) for c in range(3)]
    assert sums == pytest.approx([8.5, 8.5, 0] if balanced else [17 * 4 / 7, 17 * 3 / 7, 0])

from itertools import combinations

import pytest
import torch

from medbolt.longtail import RangeLoss


def slow(features, target, k, margin, alpha, beta):
    """Return the loss by loops over classes and pairs."""
    classes = sorted(set(target.tolist()))
    members = {c: [x for x, y in zip(features, target.tolist(), strict=True) if y == c] for c in classes}
    loss = 0
    for c in classes:
        distances = sorted((((a - b) ** 2).sum() for a, b in combinations(members[c], 2)), reverse=True)[:k]
        if distances:
            loss = loss + alpha * len(distances) / sum(1 / d for d in distances)
    means = [sum(members[c]) / len(members[c]) for c in classes]
    gaps = [((a - b) ** 2).sum() for a, b in combinations(means, 2)]
    return loss + (beta * max(0, margin - min(gaps)) if gaps else 0)


@pytest.mark.parametrize("k", [1, 2, 5])
@pytest.mark.parametrize("margin", [0.1, 100.0])
def test_equals_the_formula_pair_by_pair(k, margin, logits, target):
    loss = RangeLoss(k, margin, 0.4, 0.3)
    torch.testing.assert_close(loss(logits, target), slow(logits, target, k, margin, 0.4, 0.3))


def test_a_lone_sample_a_class_has_no_range(logits):
    assert RangeLoss(margin=0.0)(logits[:3], torch.tensor([4, 0, 2])) == 0


def test_equal_features_have_a_finite_gradient():
    features = torch.ones(4, 3, requires_grad=True)
    RangeLoss()(features, torch.tensor([0, 0, 1, 1])).backward()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("options", [{"num_ranges": 0}, {"margin": -1.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="num_ranges must be at least 1"):
        RangeLoss(**options)

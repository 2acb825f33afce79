import math

import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import LabelAwareSmoothingLoss

SHAPES = {
    "concave": lambda x: math.sin(math.pi * x / 2),
    "linear": lambda x: x,
    "convex": lambda x: 1 + math.sin(3 * math.pi / 2 + math.pi * x / 2),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula_sample_by_sample(shape, logits, target, counts):
    smoothing = [0.1 + 0.3 * SHAPES[shape](max(n - 1, 0) / 499) for n in counts]
    expected = []
    for z, y in zip(logits, target.tolist(), strict=True):
        log_p = z.log_softmax(0)
        expected.append(-(1 - smoothing[y]) * log_p[y] - smoothing[y] * log_p.mean())
    loss = LabelAwareSmoothingLoss(0.4, 0.1, shape, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_soft_targets_weigh_the_losses_of_the_classes(logits, soft, counts):
    loss = LabelAwareSmoothingLoss(0.4, 0.1, class_counts=counts, reduction="none")
    by_class = torch.stack([loss(logits, torch.full((12,), c)) for c in range(5)], 1)
    torch.testing.assert_close(loss(logits, soft), (soft * by_class).sum(1))


def test_equal_smoothing_is_torch_s_and_none_is_cross_entropy(logits, target, counts):
    loss = LabelAwareSmoothingLoss(0.2, 0.2, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target, label_smoothing=0.2))
    loss = LabelAwareSmoothingLoss(0.0, 0.0, class_counts=counts)
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))


def test_smoothing_out_of_range_is_refused():
    with pytest.raises(ValueError, match="smoothing must be in"):
        LabelAwareSmoothingLoss(1.0)

import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from medbolt.noisy.losses.importance_reweighting import ImportanceReweightedLoss

MATRIX = [[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]]
LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def weight(z, y):
    p = [math.exp(v) / sum(math.exp(w) for w in z) for v in z]
    return p[y] / sum(p[i] * MATRIX[i][y] for i in range(3))


def test_equals_the_formula_sample_by_sample():
    losses = ImportanceReweightedLoss(MATRIX, reduction="none")(LOGITS, TARGET)
    plain = cross_entropy(LOGITS, TARGET, reduction="none")
    for value, loss, z, y in zip(losses, plain, LOGITS.tolist(), TARGET.tolist(), strict=True):
        assert value.item() == pytest.approx(weight(z, y) * loss.item(), rel=1e-5)


def test_the_weight_has_no_gradient():
    logits = LOGITS.clone().requires_grad_()
    ImportanceReweightedLoss(MATRIX, reduction="sum")(logits, TARGET).backward()
    weights = torch.tensor([weight(z, y) for z, y in zip(LOGITS.tolist(), TARGET.tolist(), strict=True)])
    plain = LOGITS.softmax(1) - torch.nn.functional.one_hot(TARGET, 3)
    torch.testing.assert_close(logits.grad, weights[:, None] * plain)


def test_is_cross_entropy_without_noise():
    torch.testing.assert_close(ImportanceReweightedLoss(torch.eye(3))(LOGITS, TARGET), cross_entropy(LOGITS, TARGET))


def test_soft_targets_are_the_mean_over_labels():
    loss, soft = ImportanceReweightedLoss(MATRIX), torch.tensor([[0.25, 0.75, 0.0]])
    hard = [loss(LOGITS[:1], torch.tensor([label])) for label in (0, 1)]
    torch.testing.assert_close(loss(LOGITS[:1], soft), 0.25 * hard[0] + 0.75 * hard[1])

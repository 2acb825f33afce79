import math

import pytest
import torch
from torch.nn.functional import cross_entropy

from medbolt.noisy.losses.forward_correction import ForwardCorrectedLoss

MATRIX = [[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]]
LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


@pytest.mark.parametrize("transition", [MATRIX, torch.tensor(MATRIX)], ids=["lists", "tensor"])
def test_equals_the_formula_sample_by_sample(transition):
    losses = ForwardCorrectedLoss(transition, reduction="none")(LOGITS, TARGET)
    for value, z, y in zip(losses, LOGITS.tolist(), TARGET.tolist(), strict=True):
        p = [math.exp(v) / sum(math.exp(w) for w in z) for v in z]
        assert value.item() == pytest.approx(-math.log(sum(p[i] * MATRIX[i][y] for i in range(3))), rel=1e-5)


def test_is_cross_entropy_without_noise():
    torch.testing.assert_close(ForwardCorrectedLoss(torch.eye(3))(LOGITS, TARGET), cross_entropy(LOGITS, TARGET))


def test_its_minimum_over_noisy_labels_is_the_clean_distribution():
    """A free softmax fitted to a share of noisy labels finds the share of clean ones."""
    clean = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    noisy = clean @ torch.tensor(MATRIX, dtype=torch.float64)
    logits = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=200, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = ForwardCorrectedLoss(MATRIX)(logits, noisy)
        loss.backward()
        return loss

    optimizer.step(closure)
    torch.testing.assert_close(logits.softmax(1).detach(), clean, atol=1e-3, rtol=0)


def test_keeps_its_gradient_where_public_code_clamps():
    logits = torch.tensor([[0.0, 30.0, 0.0]], requires_grad=True)  # p_0 = 1e-13
    ForwardCorrectedLoss(torch.eye(3))(logits, torch.tensor([0])).backward()
    assert logits.grad[0].tolist() == pytest.approx([-1, 1, 0], abs=1e-5)


def test_the_matrix_moves_with_the_module_and_is_saved():
    assert "transition" in ForwardCorrectedLoss(MATRIX).state_dict()

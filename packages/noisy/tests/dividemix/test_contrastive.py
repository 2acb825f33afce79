import pytest
import torch
from torch.nn.functional import cosine_similarity

from medbolt.noisy.dividemix.contrastive import ContrastiveHead


def test_equals_the_formula_view_by_view():
    torch.manual_seed(0)
    head = ContrastiveHead(6, temperature=0.3, width=4)
    views = torch.randn(2, 3, 6)
    z = head.projection(views.flatten(0, 1))
    similar = [[(cosine_similarity(a, b, dim=0) / 0.3).exp() for b in z] for a in z]
    losses = []
    for a in range(6):
        other = (a + 3) % 6
        losses.append(-torch.log(similar[a][other] / sum(similar[a][b] for b in range(6) if b != a)))
    torch.testing.assert_close(head(*views), torch.stack(losses).mean())


@pytest.mark.parametrize("size", [0, 1])
def test_is_zero_without_anything_to_differ_from(size):
    head = ContrastiveHead(6, temperature=0.5)
    loss = head(torch.randn(size, 6), torch.randn(size, 6))
    loss.backward()
    assert loss.item() == 0
    assert all(p.grad is not None and not p.grad.any() for p in head.parameters())


def test_is_float32_and_finite_under_autocast():
    head = ContrastiveHead(6, temperature=0.05)
    same = torch.ones(4, 6, dtype=torch.bfloat16, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = head(same, -1e4 * same)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert same.grad.isfinite().all()

import torch
from torch.nn.functional import cosine_similarity

from medbolt.noisy.memorizing.feature_consistency import FeatureConsistency


def test_equals_the_formula_and_stops_the_gradient_of_what_is_foretold():
    torch.manual_seed(0)
    alike = FeatureConsistency(5, hidden=7)
    first, second = torch.randn(3, 5, requires_grad=True), torch.randn(3, 5)
    found = alike(first, second)
    z, other = alike.projection(first), alike.projection(second)
    for i in range(3):
        cosines = [
            cosine_similarity(alike.prediction(a[i : i + 1]), b[i : i + 1])
            for a, b in ((z, other.detach()), (other, z.detach()))
        ]
        torch.testing.assert_close(found[i], -sum(cosines)[0] / 2)
    (gradient,) = torch.autograd.grad(found.sum(), first, retain_graph=True)
    (expected,) = torch.autograd.grad(
        -cosine_similarity(alike.prediction(z), other.detach()).sum() / 2, first, retain_graph=True
    )
    torch.testing.assert_close(gradient, expected)


def test_is_float32_and_finite_under_autocast():
    alike = FeatureConsistency(5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = alike(torch.zeros(2, 5, dtype=torch.bfloat16, requires_grad=True), 1e4 * torch.ones(2, 5))
    found.sum().backward()
    assert found.dtype == torch.float32
    assert found.isfinite().all()
    assert all(p.grad.isfinite().all() for p in alike.parameters())

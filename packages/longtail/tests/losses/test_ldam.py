import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import LDAMLoss


def margin_loss(z, y, margin):
    handicapped = z.clone()
    handicapped[y] -= margin
    return -handicapped.log_softmax(0)[y]


def margins(counts, scale, largest):
    smallest = min(n for n in counts if n)
    return [scale * largest * (smallest / max(n, smallest)) ** 0.25 for n in counts]


def test_equals_the_formula_sample_by_sample(logits, target, counts):
    delta = margins(counts, 10.0, 0.5)
    expected = torch.stack([margin_loss(z, y, delta[y]) for z, y in zip(logits, target, strict=True)])
    loss = LDAMLoss(0.5, 10.0, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, target), expected)


def test_soft_targets_mix_the_losses_each_with_its_own_margin(logits, soft, counts):
    delta = margins(counts, 10.0, 0.5)
    expected = torch.stack(
        [sum(t[c] * margin_loss(z, c, delta[c]) for c in range(5)) for z, t in zip(logits, soft, strict=True)]
    )
    loss = LDAMLoss(0.5, 10.0, class_counts=counts, reduction="none")
    torch.testing.assert_close(loss(logits, soft), expected)


def test_without_margin_it_is_cross_entropy_on_cosines(target, soft, counts):
    cosines = F.normalize(torch.randn(12, 8).double()) @ F.normalize(torch.randn(8, 5).double(), dim=0)
    loss = LDAMLoss(max_margin=0.0, scale=1.0, class_counts=counts)
    torch.testing.assert_close(loss(cosines, target), F.cross_entropy(cosines, target))
    torch.testing.assert_close(loss(cosines, soft), F.cross_entropy(cosines, soft))


def test_soft_targets_of_sure_predictions_keep_their_precision_in_float32():
    logits = torch.tensor([[30.0, -30.0]])
    loss = LDAMLoss(class_counts=[1, 1], reduction="none")
    soft = loss(logits, torch.tensor([[1.0, 0.0]]))
    torch.testing.assert_close(soft, loss(logits, torch.tensor([0])))
    assert soft < 1e-15


def test_soft_targets_of_certain_predictions_have_a_finite_gradient():
    logits = torch.tensor([[200.0, 0.0, 0.0]], requires_grad=True)
    LDAMLoss(class_counts=[1, 1, 1])(logits, torch.tensor([[0.5, 0.5, 0.0]])).backward()
    assert logits.grad.isfinite().all()


def test_isic_s_margins_are_those_published_with_the_split():
    counts = [5000, 2590, 1342, 695, 360, 187, 97, 51]
    expected = [0.159, 0.187, 0.221, 0.260, 0.307, 0.361, 0.426, 0.5]
    loss = LDAMLoss(scale=1.0, class_counts=counts, reduction="none")(torch.zeros(8, 8).double(), torch.arange(8))
    # log(1 + 7 e^margin) solved for the margin
    torch.testing.assert_close((torch.expm1(loss) / 7).log(), torch.tensor(expected).double(), atol=6e-4, rtol=0)


@pytest.mark.parametrize("options", [{"max_margin": -0.1}, {"scale": 0.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="max_margin must not be negative"):
        LDAMLoss(**options)

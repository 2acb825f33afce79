import pytest
import torch
import torch.nn.functional as F

from medbolt.longtail import CosineHead, LDAMLoss


def test_equals_the_formula_entry_by_entry(features):
    head = CosineHead(6, 4, scale=7.0).double()
    expected = torch.tensor([[7 * (w @ x) / (w.norm() * x.norm()) for w in head.weight.detach()] for x in features])
    torch.testing.assert_close(head(features), expected.double(), atol=1e-6, rtol=0)


def test_lengths_play_no_part(features):
    head = CosineHead(6, 4).double()
    logits = head(features)
    head.weight.data *= torch.tensor([1.0, 10.0, 0.1, 100.0])[:, None]
    torch.testing.assert_close(head(features * 3), logits)


def test_ldam_without_margin_is_cross_entropy_on_it(features):
    logits = CosineHead(6, 4, scale=1.0).double()(features)
    target = torch.tensor([0, 1, 2, 3, 0, 0, 1])
    loss = LDAMLoss(max_margin=0.0, scale=1.0, class_counts=[4, 3, 2, 1])
    torch.testing.assert_close(loss(logits, target), F.cross_entropy(logits, target))


def test_a_learnt_scale_starts_as_given_and_is_trained(features):
    head = CosineHead(6, 4, scale=5.0, learn_scale=True).double()
    fixed = CosineHead(6, 4, scale=5.0).double()
    fixed.weight.data = head.weight.data
    torch.testing.assert_close(head(features), fixed(features))
    assert "log_factor" not in dict(fixed.named_parameters())
    optimizer = torch.optim.SGD(head.parameters(), 0.5)
    head(features).square().mean().backward()  # smaller logits are better
    optimizer.step()
    assert head(features).abs().mean() < fixed(features).abs().mean()


def test_half_precision_and_zeros(finite_in_half_precision):
    finite_in_half_precision(CosineHead(6, 4, learn_scale=True))


def test_it_is_drawn_anew_as_it_was_made():
    torch.manual_seed(0)
    head = CosineHead(400, 50, learn_scale=True)
    drawn = head.weight.detach().clone()
    assert drawn.std().item() == pytest.approx(400**-0.5, rel=0.03)
    head.log_factor.data += 1
    head.weight.data.zero_()
    torch.manual_seed(0)
    head.reset_parameters()
    assert torch.equal(head.weight, drawn)
    assert head.log_factor == 0


@pytest.mark.parametrize("options", [{"scale": 0.0}, {"eps": -1.0}])
def test_values_out_of_range_are_refused(options):
    with pytest.raises(ValueError, match="scale and eps must be positive"):
        CosineHead(6, 4, **options)

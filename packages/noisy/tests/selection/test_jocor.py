import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from medbolt.noisy import JoCoR
from medbolt.noisy.selection.jocor import symmetric_divergence

GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = torch.randn(8, 3, generator=GENERATOR), torch.randn(8, 3, generator=GENERATOR)
TARGET = torch.arange(8) % 3


def joint_losses(weight, first=FIRST, second=SECOND):
    """The formula in a slow loop, in float64."""
    losses = []
    for z, w, y in zip(first.double(), second.double(), TARGET, strict=True):
        p, q = z.softmax(0), w.softmax(0)
        divergence = sum(float(a * (a / b).log() + b * (b / a).log()) for a, b in zip(p, q, strict=True))
        losses.append(float((1 - weight) * -(p[y].log() + q[y].log()) + weight * divergence))
    return losses


@pytest.mark.parametrize("weight", [0.0, 0.1, 0.9])
def test_equals_the_formula_sample_by_sample(step_of, fixed, weight):
    callback = JoCoR(0.5, weight, peer=fixed(SECOND))
    losses = callback.objective(step_of(FIRST, TARGET))
    expected = joint_losses(weight)
    kept = sorted(range(8), key=expected.__getitem__)[:4]
    assert losses.nonzero().flatten().tolist() == sorted(kept)
    assert losses.mean().item() == pytest.approx(sum(expected[i] for i in kept) / 4, rel=1e-5)
    assert callback.selection.kept.nonzero().flatten().tolist() == sorted(kept)


def test_the_divergence_is_torch_s_both_ways():
    log_p, log_q = FIRST.log_softmax(1), SECOND.log_softmax(1)
    both = kl_div(log_q, log_p, log_target=True, reduction="none") + kl_div(
        log_p, log_q, log_target=True, reduction="none"
    )
    torch.testing.assert_close(symmetric_divergence(FIRST, SECOND), both.sum(1))
    assert symmetric_divergence(FIRST, FIRST + 5).abs().max() < 1e-5
    one_logit = torch.tensor([0.3]), torch.tensor([-1.0])
    two = [torch.stack([torch.zeros(1), z], dim=1) for z in one_logit]
    torch.testing.assert_close(symmetric_divergence(*one_logit), symmetric_divergence(*two))


def test_the_ranking_follows_a_sample_s_cross_entropy(step_of, fixed):
    """Its label alone is changed, so the divergence stays: a ranking by the divergence would not move."""
    callback = JoCoR(0.5, peer=fixed(FIRST))  # networks that agree everywhere
    callback.objective(step_of(FIRST, TARGET))
    kept = int(callback.selection.kept.nonzero()[0])
    wrong = TARGET.clone()
    wrong[kept] = FIRST[kept].argmin()
    loss = cross_entropy(FIRST, wrong, reduction="none")
    assert loss[kept] > loss.median()
    callback.objective(step_of(FIRST, wrong))
    assert not callback.selection.kept[kept]


def test_both_networks_get_a_gradient_of_both_terms(step_of, fixed):
    first = FIRST.clone().requires_grad_()
    callback = JoCoR(0.0, 0.5, peer=fixed(SECOND))
    callback.objective(step_of(first, TARGET)).mean().backward()
    assert (callback.peer.logits.grad.abs().sum(1) > 0).all()
    alone = torch.autograd.grad(cross_entropy(first, TARGET), first)[0]
    assert not torch.allclose(first.grad, 0.5 * alone)


@pytest.mark.parametrize("size", [0, 1, 4])
def test_odd_batches_and_extreme_logits_are_finite(step_of, fixed, size):
    logits = (1e4 * torch.randn(size, 3)).bfloat16().requires_grad_()
    callback = JoCoR(0.5, 0.5, peer=fixed(-1e4 * torch.ones(size, 3).cumsum(1)))
    soft = torch.full((size, 3), 1 / 3, dtype=torch.bfloat16)
    losses = callback.objective(step_of(logits, soft))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()
    assert callback.peer.logits.grad.isfinite().all()


@pytest.mark.parametrize("weight", [-0.1, 1.0])
def test_refuses_a_weight_out_of_range(weight):
    with pytest.raises(ValueError, match="co_regularization"):
        JoCoR(0.4, weight)


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(JoCoR(0.4)) > cross_entropy_accuracy + 0.1

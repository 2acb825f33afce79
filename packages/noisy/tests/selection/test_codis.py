import math

import pytest
import torch
from torch.nn.functional import cross_entropy, kl_div

from medbolt.noisy import CoDis, CoTeaching
from medbolt.noisy.selection.codis import jensen_shannon_divergence, swapped_divergence

GENERATOR = torch.Generator().manual_seed(0)
FIRST, SECOND = 3 * torch.randn(64, 3, generator=GENERATOR), 3 * torch.randn(64, 3, generator=GENERATOR)
TARGET = torch.arange(64) % 3
OPPOSITE = torch.tensor([[80.0, 0.0]]), torch.tensor([[0.0, 80.0]])


def test_the_divergence_is_jensen_and_shannon_s():
    found = jensen_shannon_divergence(FIRST.log_softmax(1), SECOND.log_softmax(1))
    for value, z, w in zip(found, FIRST.double(), SECOND.double(), strict=True):
        p, q = z.softmax(0), w.softmax(0)
        m = (p + q) / 2
        expected = (p * (p / m).log() + q * (q / m).log()).sum() / 2
        assert value.item() == pytest.approx(float(expected), abs=1e-6)


@pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
def test_the_divergence_is_between_nothing_and_log_two(scale):
    found = jensen_shannon_divergence((scale * FIRST).log_softmax(1), (scale * SECOND).log_softmax(1))
    assert found.min() >= -1e-6
    assert found.max() <= math.log(2) + 1e-6
    opposite = jensen_shannon_divergence(*(z.log_softmax(1) for z in OPPOSITE))
    assert opposite.item() == pytest.approx(math.log(2))


def test_the_compatible_one_is_the_authors_and_has_no_bound():
    log_p, log_q = FIRST.log_softmax(1), SECOND.log_softmax(1)
    m = (log_p.exp() + log_q.exp()) / 2
    authors = (kl_div(log_p, m, reduction="none") + kl_div(log_q, m, reduction="none")).sum(1) / 2
    torch.testing.assert_close(swapped_divergence(log_p, log_q), authors)
    assert swapped_divergence(*(z.log_softmax(1) for z in OPPOSITE)).item() == pytest.approx(40 - math.log(2), rel=1e-4)


@pytest.mark.parametrize("compat", [False, True])
def test_ranks_by_and_learns_from_the_loss_less_the_divergence(step_of, fixed, compat):
    first = FIRST.clone().requires_grad_()
    callback = CoDis(0.5, 0.4, compat, peer=fixed(SECOND))
    loss = callback.objective(step_of(first, TARGET)).mean()
    log_p, log_q = FIRST.log_softmax(1), SECOND.log_softmax(1)
    divergence = (swapped_divergence if compat else jensen_shannon_divergence)(log_p, log_q)
    one = cross_entropy(FIRST, TARGET, reduction="none") - 0.4 * divergence
    two = cross_entropy(SECOND, TARGET, reduction="none") - 0.4 * divergence
    for_one, for_two = two.argsort()[:32], one.argsort()[:32]
    assert loss.item() == pytest.approx(float(one[for_one].mean() + two[for_two].mean()), rel=1e-5)
    assert callback.selection.kept.nonzero().flatten().tolist() == sorted(for_one.tolist())


def test_each_network_sees_the_gradient_of_its_own_loss_only(step_of, fixed):
    first = FIRST.clone().requires_grad_()
    callback = CoDis(0.0, 0.4, peer=fixed(SECOND))
    callback.objective(step_of(first, TARGET)).mean().backward()
    for found, own, other in ((first, FIRST, SECOND), (callback.peer.logits, SECOND, FIRST)):
        alone = own.clone().requires_grad_()
        divergence = jensen_shannon_divergence(alone.log_softmax(1), other.log_softmax(1))
        (cross_entropy(alone, TARGET) - 0.4 * divergence.mean()).backward()
        torch.testing.assert_close(found.grad, alone.grad)


def test_is_co_teaching_without_the_divergence(step_of, fixed):
    found = [
        method.objective(step_of(FIRST, TARGET))
        for method in (CoDis(0.5, 0, peer=fixed(SECOND)), CoTeaching(0.5, peer=fixed(SECOND)))
    ]
    assert torch.equal(*found)


@pytest.mark.parametrize("compat", [False, True])
@pytest.mark.parametrize("size", [0, 1, 4])
def test_odd_batches_and_extreme_logits_are_finite(step_of, fixed, size, compat):
    logits = (1e4 * torch.randn(size, 3)).bfloat16().requires_grad_()
    callback = CoDis(0.5, compat=compat, peer=fixed(-1e4 * torch.ones(size, 3).cumsum(1)))
    soft = torch.full((size, 3), 1 / 3, dtype=torch.bfloat16)
    losses = callback.objective(step_of(logits, soft))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()
    assert callback.peer.logits.grad.isfinite().all()


def test_refuses_a_negative_weight():
    with pytest.raises(ValueError, match="divergence_weight"):
        CoDis(0.4, -0.1)


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(CoDis(0.4)) > cross_entropy_accuracy + 0.1

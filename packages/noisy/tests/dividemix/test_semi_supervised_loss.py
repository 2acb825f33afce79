import math

import pytest
import torch

from medbolt.noisy.dividemix.semi_supervised_loss import SemiSupervisedLoss, prior_penalty

LABELLED = torch.tensor([True, True, False, True, False, False])


def random_batch(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(6, 3, generator=generator, dtype=dtype).requires_grad_()
    return logits, torch.randn(6, 3, generator=generator, dtype=dtype).softmax(1)


@pytest.mark.parametrize("kind", ["ce", "sce"])
def test_equals_the_formula_sample_by_sample(kind):
    logits, target = random_batch()
    prior = torch.tensor([0.7, 0.3, 0.0], dtype=torch.float64)
    found = SemiSupervisedLoss(kind, 2.0, 0.5)(logits, target, LABELLED, torch.tensor([3.0, 3.0]), 7.0, prior)
    supervised, squared = [], []
    probability = [torch.softmax(row, 0).tolist() for row in logits.detach()]
    for p, t, is_labelled in zip(probability, target.tolist(), LABELLED.tolist(), strict=True):
        if not is_labelled:
            squared += [(a - b) ** 2 for a, b in zip(p, t, strict=True)]
        elif kind == "ce":
            supervised.append(-sum(b * math.log(a) for a, b in zip(p, t, strict=True)))
        else:
            of_label = p[t.index(max(t))]
            supervised.append(-2.0 * math.log(of_label) - 0.5 * math.log(1e-4) * (1 - of_label))
    mean = [sum(column) / 6 for column in zip(*probability, strict=True)]
    penalty = 0.7 * math.log(0.7 / mean[0]) + 0.3 * math.log(0.3 / mean[1])
    assert found.item() == pytest.approx(sum(supervised) / 3 + 7 * sum(squared) / 9 + penalty)


def test_the_penalty_is_zero_at_the_prior_only():
    assert prior_penalty(torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log(), torch.tensor([0.3, 0.7])).item() == (
        pytest.approx(0, abs=1e-6)
    )
    assert prior_penalty(torch.tensor([[0.5, 0.5], [0.1, 0.9]]).log(), torch.tensor([0.5, 0.5])).item() > 0.05


@pytest.mark.parametrize("kind", ["ce", "sce"])
@pytest.mark.parametrize("all_or_none", [True, False])
def test_a_set_without_samples_counts_nothing(kind, all_or_none):
    logits, target = random_batch()
    labelled = torch.full((6,), all_or_none)
    counts = torch.tensor([6.0, 0.0] if all_or_none else [0.0, 6.0])
    loss = SemiSupervisedLoss(kind)(logits, target, labelled, counts, 0.0)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()
    assert bool(loss == 0) is not all_or_none


@pytest.mark.parametrize("kind", ["ce", "sce"])
def test_gradient_is_finite_under_bfloat16_and_extreme_logits(kind):
    logits = torch.tensor([[300.0, -300, 0], [-300, 300, 0]], dtype=torch.bfloat16, requires_grad=True)
    target, labelled = torch.tensor([[0.0, 1, 0], [1, 0, 0]]), torch.tensor([True, False])
    loss = SemiSupervisedLoss(kind)(logits, target, labelled, torch.ones(2), 25.0, torch.tensor([0.0, 0.0, 1.0]))
    loss.backward()
    assert loss.dtype == torch.float32
    assert logits.grad.isfinite().all()

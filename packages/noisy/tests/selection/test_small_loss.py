import math
from types import SimpleNamespace

import pytest
import torch
from toys import ToyClassifier, ToyImages, trainer

from medbolt.noisy import SmallLossSelection
from medbolt.noisy.selection.smallest import weighted, weights_of_smallest

LOSSES = torch.tensor([5.0, 1.0, 3.0, 1.0, 2.0, 4.0, 0.0, 6.0])


def by_hand(losses, fraction):
    """The mean loss of those kept, of a slow loop."""
    order = sorted(range(len(losses)), key=lambda i: (losses[i], i))
    kept = order[: max(1, math.floor(fraction * len(losses)))]
    return kept, sum(losses[i] for i in kept) / len(kept)


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.25, 0.5, 0.74, 1.0])
def test_the_mean_is_that_of_the_smallest_losses(fraction):
    weights = weights_of_smallest(LOSSES, fraction)
    kept, mean = by_hand(LOSSES.tolist(), fraction)
    assert weights.nonzero().flatten().tolist() == sorted(kept)
    assert weighted(LOSSES, weights).mean().item() == pytest.approx(mean)


def test_of_equal_losses_the_earlier_are_kept():
    assert weights_of_smallest(torch.ones(4), 0.5).tolist() == [2, 2, 0, 0]


def test_a_share_that_is_a_whole_number_is_not_rounded_below_it():
    assert sum(weights_of_smallest(torch.ones(10), 1 - 0.8) > 0) == 2  # (1 - 0.8) * 10 is 1.9999999999999996


def test_losses_that_are_not_finite_come_last_and_spoil_no_gradient():
    losses = torch.tensor([torch.nan, 3.0, torch.inf, -torch.inf], requires_grad=True)
    loss = weighted(losses, weights_of_smallest(losses, 0.25)).mean()
    loss.backward()
    assert loss.item() == 3
    assert losses.grad.tolist() == [0, 1, 0, 0]


def test_chooses_among_candidates_and_without_one_takes_all():
    candidates = torch.tensor([True, False, True, False, True, False, False, False])
    weights = weights_of_smallest(LOSSES, 0.7, candidates)  # 2 of 3
    assert weights.tolist() == [0, 0, 4, 0, 4, 0, 0, 0]
    assert weights_of_smallest(LOSSES, 0.7, candidates & False).tolist() == [1] * 8


@pytest.mark.parametrize("size", [0, 1])
def test_batches_of_one_and_of_nothing(size):
    assert weights_of_smallest(torch.ones(size), 0.1).tolist() == [1] * size


def processes_of(parts):
    """Return a stand-in for the strategy of each process."""

    def strategy(rank):
        def all_gather(mine):
            if mine.dtype == torch.int64:
                return torch.tensor([[len(part)] for part in parts])
            longest = max(len(part) for part in parts)
            filled = [torch.cat([part, torch.full((longest - len(part),), torch.nan)]) for part in parts]
            assert torch.equal(mine.nan_to_num(), filled[rank].nan_to_num())
            return torch.stack(filled)

        return SimpleNamespace(world_size=len(parts), global_rank=rank, all_gather=all_gather)

    return [strategy(rank) for rank in range(len(parts))]


@pytest.mark.parametrize("fraction", [0.1, 0.25, 0.5, 0.9])
@pytest.mark.parametrize("parts", [[LOSSES[::2], LOSSES[1::2]], [LOSSES[::3], LOSSES[1::3], LOSSES[2::3]]])
def test_processes_choose_together_what_one_would(parts, fraction):
    whole = weights_of_smallest(LOSSES, fraction)
    gradient = weighted(LOSSES, whole) / len(LOSSES)
    for rank, (part, strategy) in enumerate(zip(parts, processes_of(parts), strict=True)):
        weights = weights_of_smallest(part, fraction, strategy=strategy)
        assert torch.equal(weights > 0, whole[rank :: len(parts)] > 0)
        mine = weighted(part, weights) / len(part) / len(parts)  # the mean of the batch, then that of the processes
        torch.testing.assert_close(mine, gradient[rank :: len(parts)])


def test_a_process_without_a_sample_kept_has_no_gradient_but_a_graph():
    losses = torch.tensor([7.0, 8.0], requires_grad=True)
    strategy = processes_of([torch.tensor([0.0, 1.0]), losses.detach()])[1]
    loss = weighted(losses, weights_of_smallest(losses, 0.5, strategy=strategy)).mean()
    loss.backward()
    assert loss.item() == 0
    assert losses.grad.tolist() == [0, 0]


def test_the_schedule_rises_to_the_forget_rate():
    schedule = SmallLossSelection(0.4, gradual_epochs=4).keep_fraction
    assert [round(schedule(t), 3) for t in range(6)] == [1, 0.9, 0.8, 0.7, 0.6, 0.6]
    squared = SmallLossSelection(0.4, gradual_epochs=4, exponent=2).keep_fraction
    assert [round(squared(t), 3) for t in range(4)] == [1, 0.9, 0.6, 0.6]
    assert SmallLossSelection(0.4, gradual_epochs=0).keep_fraction(0) == 0.6


def test_tells_which_samples_it_kept(step_of):
    callback = SmallLossSelection(0.5)
    logits, target = torch.tensor([[3.0, 0.0]] * 4), torch.tensor([0, 1, 1, 0])
    losses = callback.objective(step_of(logits, target, index=torch.tensor([9, 4, 7, 1])))
    assert callback.selection.kept.tolist() == [True, False, False, True]
    assert callback.selection.index.tolist() == [9, 4, 7, 1]
    assert losses.mean().item() == pytest.approx(math.log1p(math.exp(-3)))
    callback.objective(step_of(logits, target))
    assert callback.selection.index is None


def test_soft_targets_and_bfloat16(step_of):
    logits = torch.randn(8, 3, dtype=torch.bfloat16, requires_grad=True)
    soft = torch.rand(8, 3).softmax(1).bfloat16()
    SmallLossSelection(0.5).objective(step_of(logits, soft)).mean().backward()
    assert logits.grad.isfinite().all()
    assert (logits.grad.abs().sum(1) > 0).sum() == 4


def test_warns_once_of_batches_too_small_to_choose_from(recwarn):
    trainer(SmallLossSelection(0.4, gradual_epochs=0)).fit(ToyClassifier(), datamodule=ToyImages())
    told = [w for w in recwarn if "fewer than four" in str(w.message)]
    assert len(told) == 1


@pytest.mark.parametrize(
    "options", [{"forget_rate": 1}, {"forget_rate": -0.1}, {"gradual_epochs": -1}, {"exponent": 0}, {"scope": "all"}]
)
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        SmallLossSelection(**({"forget_rate": 0.4} | options))


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(SmallLossSelection(0.4)) > cross_entropy_accuracy + 0.1

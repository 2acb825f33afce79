import pytest
import torch
from torch.nn.functional import cross_entropy

from medbolt.noisy import CoTeaching, CoTeachingPlus

# the networks disagree about samples 0, 1 and 4
FIRST = torch.tensor([[0.0, 3.0], [0.0, 1.0], [0.0, 9.0], [9.0, 0.0], [2.0, 0.0], [0.0, 8.0]])
SECOND = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 7.0], [7.0, 0.0], [0.0, 3.0], [0.0, 7.0]])
TARGET = torch.tensor([1, 0, 1, 0, 1, 1])


def losses_of(callback, step, second):
    first = step.logits.requires_grad_()
    loss = callback.objective(step).mean()
    loss.backward()
    return loss, (first.grad.abs().sum(1) > 0).tolist(), (second.grad.abs().sum(1) > 0).tolist()


def test_chooses_among_the_samples_the_networks_disagree_about(step_of, fixed):
    callback = CoTeachingPlus(0.3, warmup_epochs=5, peer=fixed(SECOND))  # floor(0.7 * 3) = 2 of 3
    loss, learned, taught = losses_of(callback, step_of(FIRST.clone(), TARGET), callback.peer.logits)
    one, two = (cross_entropy(logits, TARGET, reduction="none") for logits in (FIRST, SECOND))
    assert learned == [False, True, False, False, True, False]  # easy for the second
    assert taught == [True, True, False, False, False, False]  # easy for the first
    assert loss.item() == pytest.approx(float(one[[1, 4]].mean() + two[[0, 1]].mean()))


def test_is_co_teaching_in_the_warm_up(step_of, fixed):
    found = [
        method.objective(step_of(FIRST, TARGET, epoch=4)).tolist()
        for method in (CoTeachingPlus(0.5, 5, peer=fixed(SECOND)), CoTeaching(0.5, peer=fixed(SECOND)))
    ]
    assert found[0] == found[1]


def test_takes_the_whole_batch_where_the_networks_agree(step_of, fixed):
    callback = CoTeachingPlus(0.5, 0, peer=fixed(2 * FIRST))
    losses = callback.objective(step_of(FIRST, TARGET))
    expected = cross_entropy(FIRST, TARGET, reduction="none") + cross_entropy(2 * FIRST, TARGET, reduction="none")
    torch.testing.assert_close(losses, expected)
    assert callback.selection.kept.all()


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_small_batches_are_finite(step_of, fixed, size, dtype):
    logits = torch.zeros(size, 2, dtype=dtype, requires_grad=True)
    callback = CoTeachingPlus(0.5, 0, peer=fixed(torch.ones(size, 2) * torch.tensor([0.0, 500.0])))
    losses = callback.objective(step_of(logits, torch.zeros(size, dtype=torch.int64)))
    losses.sum().backward()
    assert losses.isfinite().all()
    assert logits.grad.isfinite().all()


def test_one_logit_tells_two_classes_apart(step_of, fixed):
    callback = CoTeachingPlus(0.0, 0, peer=fixed(torch.tensor([[2.0], [-2.0], [2.0]])))
    step = step_of(torch.tensor([1.0, 1.0, -1.0]), torch.zeros(3))
    object.__setattr__(step, "_inward", lambda step: step.logits**2)
    callback.objective(step)
    assert callback.selection.kept.tolist() == [False, True, True]


def test_refuses_a_negative_warm_up():
    with pytest.raises(ValueError, match="warmup_epochs"):
        CoTeachingPlus(0.4, warmup_epochs=-1)


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(CoTeachingPlus(0.4)) > cross_entropy_accuracy + 0.1

import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from medbolt.core.errors import UserError
from medbolt.core.losses import tell_class_counts
from medbolt.noisy.losses.peer_sieve import PeerSieveLoss

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def at(epoch, **options) -> PeerSieveLoss:
    loss = PeerSieveLoss(**{"reduction": "none", **options})
    loss.set_epoch(epoch)
    return loss


def test_the_schedule_is_the_authors():
    weights = {epoch: at(epoch).weight for epoch in (0, 10, 25, 40, 99)}
    assert weights == {0: 0, 10: 0, 25: pytest.approx(1), 40: 2, 99: 2}


def test_equals_the_formula_sample_by_sample():
    losses = at(25, class_counts=[1, 1, 2])(LOGITS, TARGET)  # weight 1, frequencies 1/4, 1/4, 1/2
    for value, z, y in zip(losses, LOGITS.double(), TARGET, strict=True):
        log_p = z - z.exp().sum().log()
        assert value.item() == pytest.approx(
            (-log_p[y] + (log_p[0] + log_p[1] + 2 * log_p[2]) / 4).item(), rel=1e-4, abs=1e-6
        )


def test_is_cross_entropy_in_the_warm_up():
    torch.testing.assert_close(at(9)(LOGITS, TARGET), cross_entropy(LOGITS, TARGET, reduction="none"))


def test_expects_scaled_clean_cross_entropy_at_the_weight_that_fits_the_noise():
    rate, classes = 0.4, 3
    loss = at(99, beta=rate * classes / (classes - 1), sieve_epoch=None)
    wrong = rate / (classes - 1)
    by_label = torch.stack([loss(LOGITS, torch.full((6,), y)) for y in range(classes)], dim=1)
    transition = torch.full((classes, classes), wrong).fill_diagonal_(1 - rate)
    mean = (transition[TARGET] * by_label).sum(1)
    torch.testing.assert_close(mean, (1 - rate - wrong) * cross_entropy(LOGITS, TARGET, reduction="none"))


def test_the_sieve_keeps_the_labels_that_are_expected_more_than_the_average_one():
    logits, target = torch.tensor([[2.0, 0.0], [0.0, 2.0], [3.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0, 0, 1])
    sieved, whole = at(31)(logits, target), at(31, sieve_epoch=None)(logits, target)
    kept = torch.tensor([True, False, True, True])
    torch.testing.assert_close(sieved, torch.where(kept, whole * 4 / 3, 0.0))
    torch.testing.assert_close(at(31, reduction="mean")(logits, target), whole[kept].mean())
    torch.testing.assert_close(at(30)(logits, target), at(30, sieve_epoch=None)(logits, target))


def test_a_batch_of_which_nothing_is_kept_costs_nothing():
    logits = torch.tensor([[0.0, 5.0]], requires_grad=True)
    loss = at(99, reduction="mean")(logits, torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0
    assert logits.grad.tolist() == [[0, 0]]


def sieved(epochs, batches, **options) -> PeerSieveLoss:
    """Return a loss at the end of some epochs of the same batches, from epoch 31 on."""
    loss = at(31, **options)
    for epoch in range(31, 31 + epochs):
        loss.set_epoch(epoch)
        for logits, target in batches:
            loss(logits, target)
    return loss


BATCHES = [(LOGITS, TARGET), (LOGITS.flip(0), TARGET), (2 * LOGITS[:3], TARGET[3:])]


def passing():
    """Count the labels that pass the sieve, sample by sample."""
    counts = [0, 0, 0]
    for logits, target in BATCHES:
        for z, y in zip(logits.double(), target.tolist(), strict=True):
            log_p = (z - z.exp().sum().log()).tolist()
            counts[y] += log_p[y] >= sum(log_p) / 3
    return counts


@pytest.mark.parametrize("soft", [False, True])
def test_label_frequencies_are_those_of_what_passed_in_the_epoch_before(soft):
    batches = [(z, one_hot(y, 3).float()) for z, y in BATCHES] if soft else BATCHES
    loss = sieved(2, batches, class_counts=[1, 1, 2])
    counts = passing()
    assert len(set(counts)) > 1
    assert loss.passed.tolist() == loss.estimated.tolist() == counts  # of this epoch, and of the one before
    expected = at(32, class_counts=counts, reestimate=False)
    torch.testing.assert_close(loss(LOGITS, TARGET), expected(LOGITS, TARGET))
    first = at(31, class_counts=[1, 1, 2])(LOGITS, TARGET)
    assert not torch.allclose(expected(LOGITS, TARGET), first)


def test_counts_are_float32_whatever_the_default():
    loss = PeerSieveLoss(warmup_epochs=0, sieve_epoch=0)
    loss.set_epoch(0)
    torch.set_default_dtype(torch.bfloat16)  # as under precision="bf16-true"
    try:
        loss(torch.eye(3, requires_grad=True), torch.tensor([0, 1, 1])).backward()
    finally:
        torch.set_default_dtype(torch.float32)
    assert loss.passed.dtype == torch.float32
    assert loss.passed.tolist() == [1, 1, 0]


def test_maps_are_counted_by_pixel():
    logits, target = torch.randn(2, 3, 4, 5), torch.randint(0, 3, (2, 4, 5))
    maps, pixels = at(31), at(31)
    maps(logits, target)
    pixels(logits.movedim(1, -1).flatten(0, 2), target.flatten())
    assert torch.equal(maps.passed, pixels.passed)


def test_only_sieved_epochs_of_training_are_counted():
    loss = at(30)
    loss(LOGITS, TARGET)
    loss.set_epoch(31)
    with torch.no_grad():
        loss(LOGITS, TARGET)
    loss.eval()(LOGITS, TARGET)
    assert loss.passed is loss.estimated is None
    assert sieved(3, BATCHES, reestimate=False).estimated is None


def test_frequencies_stay_where_nothing_passes_and_begin_anew_when_epochs_go_back():
    loss = sieved(1, BATCHES)
    loss.set_epoch(32)
    loss(torch.tensor([[0.0, 5.0, 5.0]]), torch.tensor([0]))
    loss.set_epoch(33)
    assert loss.estimated.tolist() == passing()
    loss.set_epoch(0)
    assert loss.estimated is None
    torch.testing.assert_close(loss(LOGITS, TARGET), at(0)(LOGITS, TARGET))


def test_counts_are_told_unless_given():
    told, given = PeerSieveLoss(), PeerSieveLoss(class_counts=[1, 1, 2])
    for loss in (told, given):
        loss.set_epoch(99)
        tell_class_counts(loss, [8, 1, 1])
    assert told(LOGITS, TARGET) != given(LOGITS, TARGET)
    assert given(LOGITS, TARGET) == at(99, class_counts=[1, 1, 2], reduction="mean")(LOGITS, TARGET)


def test_says_what_it_needs():
    with pytest.raises(UserError, match="set_epoch"):
        PeerSieveLoss()(LOGITS, TARGET)
    with pytest.raises(UserError, match="2 classes and logits of 3"):
        at(99, class_counts=[1, 2])(LOGITS, TARGET)
    with pytest.raises(ValueError, match="negative"):
        PeerSieveLoss(beta=-1)


def test_beats_cross_entropy_under_forty_percent_noise(trained_accuracy, cross_entropy_accuracy):
    loss = PeerSieveLoss(beta=0.4 * 4 / 3)
    assert trained_accuracy(loss) > cross_entropy_accuracy + 0.08

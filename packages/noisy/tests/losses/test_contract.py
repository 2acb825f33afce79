"""What every loss promises: reductions, soft targets, maps, precision, odd batches, and to withstand noise."""

import pytest
import torch
from torch import nn

from medbolt.core import ClassificationTask, UserError
from medbolt.core.losses import reduce
from medbolt.noisy.losses.active_passive import ActivePassiveLoss
from medbolt.noisy.losses.backward_correction import BackwardCorrectedLoss
from medbolt.noisy.losses.determinant_mutual_information import DeterminantMutualInformationLoss
from medbolt.noisy.losses.forward_correction import ForwardCorrectedLoss
from medbolt.noisy.losses.generalized_cross_entropy import GeneralizedCrossEntropyLoss
from medbolt.noisy.losses.importance_reweighting import ImportanceReweightedLoss
from medbolt.noisy.losses.label_smoothing import LabelSmoothingLoss
from medbolt.noisy.losses.mean_absolute_error import MeanAbsoluteErrorLoss
from medbolt.noisy.losses.peer_sieve import PeerSieveLoss
from medbolt.noisy.losses.symmetric_cross_entropy import SymmetricCrossEntropyLoss

CLASSES = 4
TRANSITION = torch.full((CLASSES, CLASSES), 0.4 / (CLASSES - 1)).fill_diagonal_(0.6)


def peer_sieve(**options) -> PeerSieveLoss:
    loss = PeerSieveLoss(warmup_epochs=0, ramp_epochs=1, **options)
    loss.set_epoch(40)
    return loss


def active_passive(active, passive):
    return lambda **options: ActivePassiveLoss(active, passive, **options)


PER_SAMPLE = {
    "symmetric cross entropy": SymmetricCrossEntropyLoss,
    "generalized cross entropy": GeneralizedCrossEntropyLoss,
    "truncated": lambda **options: GeneralizedCrossEntropyLoss(truncation=0.3, **options),
    "mean absolute error": MeanAbsoluteErrorLoss,
    "nce + rce": active_passive("cross_entropy", "reverse_cross_entropy"),
    "nce + mae": active_passive("cross_entropy", "mean_absolute_error"),
    "nfl + rce": active_passive("focal", "reverse_cross_entropy"),
    "nfl + mae": active_passive("focal", "mean_absolute_error"),
    "ngce + rce": active_passive("generalized_cross_entropy", "reverse_cross_entropy"),
    "ngce + mae": active_passive("generalized_cross_entropy", "mean_absolute_error"),
    "forward": lambda **options: ForwardCorrectedLoss(TRANSITION, **options),
    "backward": lambda **options: BackwardCorrectedLoss(TRANSITION, **options),
    "importance reweighting": lambda **options: ImportanceReweightedLoss(TRANSITION, **options),
    "label smoothing": LabelSmoothingLoss,
    "peer loss": lambda **options: peer_sieve(sieve_epoch=None, **options),
    "peer loss, sieved": lambda **options: peer_sieve(sieve_epoch=0, **options),
}
each_loss = pytest.mark.parametrize("make", PER_SAMPLE.values(), ids=PER_SAMPLE)
each_loss_and_dmi = pytest.mark.parametrize(
    "make",
    [*PER_SAMPLE.values(), DeterminantMutualInformationLoss],
    ids=[*PER_SAMPLE, "determinant mutual information"],
)


def batch(size=8, seed=0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(size, CLASSES, generator=generator, dtype=dtype)
    return logits, torch.arange(size) % CLASSES


@each_loss
def test_reductions_agree_with_the_per_sample_losses(make):
    logits, target = batch()
    losses = make(reduction="none")(logits, target)
    assert losses.shape == target.shape
    for reduction in ("mean", "sum"):
        torch.testing.assert_close(make(reduction=reduction)(logits, target), reduce(losses, reduction))
    with pytest.raises(ValueError, match="reduction"):
        make(reduction="average")(logits, target)


@each_loss_and_dmi
@pytest.mark.parametrize("shape", [(8, 1), (8,)])
def test_one_logit_a_sample_is_refused(make, shape):
    for target in (torch.zeros(shape), torch.zeros(8, dtype=torch.int64)):
        with pytest.raises(UserError, match=r"the loss compares classes and needs logits of shape \(B, C\)"):
            make()(torch.zeros(shape), target)


@each_loss_and_dmi
def test_tasks_of_several_labels_refuse_it(make):
    with pytest.raises(UserError, match="Loss compares classes of which a sample has one"):
        ClassificationTask(nn.Linear(2, CLASSES), CLASSES, task="multilabel", criterion=make())


@each_loss
def test_a_sample_without_a_share_has_a_finite_gradient(make):
    logits = batch()[0].requires_grad_()
    make()(logits, torch.zeros(8, CLASSES)).backward()
    assert logits.grad.isfinite().all()


@each_loss_and_dmi
def test_one_hot_targets_equal_hard_ones(make):
    logits, target = batch()
    one_hot = nn.functional.one_hot(target, CLASSES).float()
    torch.testing.assert_close(make()(logits, one_hot), make()(logits, target))


@each_loss_and_dmi
def test_maps_equal_their_pixels(make):
    logits, target = batch(24)
    soft = torch.rand(24, CLASSES).softmax(1)
    for by_pixel in (target, soft):
        as_maps = [
            v.reshape(2, 3, 4, *v.shape[1:]).movedim(-1, 1) if v.ndim == 2 else v.reshape(2, 3, 4)
            for v in (logits, by_pixel)
        ]
        torch.testing.assert_close(make()(*as_maps), make()(logits, by_pixel))


@each_loss_and_dmi
@pytest.mark.parametrize("soft", [False, True])
def test_the_gradient_is_that_of_the_value(make, soft):
    logits, target = batch(dtype=torch.float64)
    labels = torch.rand(8, CLASSES, dtype=torch.float64).softmax(1) if soft else target
    make_frozen = make()
    if isinstance(make_frozen, ImportanceReweightedLoss):
        pytest.skip("its weight has a value and no gradient: see test_importance_reweighting.py")
    assert torch.autograd.gradcheck(lambda z: make_frozen(z, labels), logits.requires_grad_())


@each_loss_and_dmi
@pytest.mark.parametrize("soft", [False, True])
def test_autocast_does_not_round_what_a_loss_computes(make, soft):
    logits, target = batch()
    labels = torch.rand(8, CLASSES, generator=torch.Generator().manual_seed(1)).softmax(1) if soft else target
    found = []
    for enabled in (False, True):
        leaf = logits.clone().requires_grad_()
        torch.manual_seed(0)
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = make()(leaf, labels)
        found.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(found[1], found[0])


@each_loss_and_dmi
@pytest.mark.parametrize("scale", [1.0, 50.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("soft", [False, True])
def test_value_and_gradient_are_finite_whatever_the_logits(make, scale, dtype, soft):
    logits = (scale * batch()[0]).to(dtype).requires_grad_()
    target = nn.functional.one_hot(batch()[1], CLASSES).float() if soft else batch()[1]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
        loss = make()(logits, target)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@each_loss_and_dmi
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("target", [[2], [1, 1, 1, 1], [0, 0, 3]])
def test_batches_of_one_sample_or_one_class_are_finite(make, target, soft):
    logits = batch(len(target))[0].requires_grad_()
    labels = torch.tensor(target)
    loss = make()(logits, 0.9 * nn.functional.one_hot(labels, CLASSES) + 0.025 if soft else labels)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@each_loss
def test_a_sure_and_wrong_prediction_is_finite(make):
    logits = torch.tensor([[100.0, 0, 0, 0]], requires_grad=True)
    loss = make()(logits, torch.tensor([1]))
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


BEATING = {
    "symmetric cross entropy": 0.06,
    "generalized cross entropy": 0.1,
    "mean absolute error": 0.1,
    "nce + rce": 0.1,
    "nce + mae": 0.06,
    "nfl + rce": 0.1,
    "nfl + mae": 0.06,
    "ngce + rce": 0.1,
    "ngce + mae": 0.06,
    "forward": 0.1,
    "backward": 0.06,
}


@pytest.mark.parametrize("name", BEATING)
def test_beats_cross_entropy_under_forty_percent_noise(name, trained_accuracy, cross_entropy_accuracy):
    assert trained_accuracy(PER_SAMPLE[name]()) > cross_entropy_accuracy + BEATING[name]


@pytest.mark.parametrize(
    "make",
    [
        lambda: GeneralizedCrossEntropyLoss(truncation=0.5),
        lambda: ImportanceReweightedLoss(TRANSITION),
        DeterminantMutualInformationLoss,
    ],
    ids=["truncated", "importance reweighting", "determinant mutual information"],
)
def test_beats_cross_entropy_when_it_refines_what_cross_entropy_began(make, trained_accuracy, cross_entropy_accuracy):
    accuracy = trained_accuracy(make(), start=nn.CrossEntropyLoss())
    assert accuracy > cross_entropy_accuracy + 0.1

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import sigmoid_focal_loss

from medbolt.core.errors import UserError
from medbolt.core.objective.criterion import Criterion

LOGITS = torch.tensor([[2.0, 0.5, -1.0], [0.1, 0.2, 0.3], [-1.0, 3.0, 0.0], [0.0, 0.0, 5.0]])
TARGET = torch.tensor([0, 2, 1, 1])
SOFT = torch.softmax(LOGITS.flip(0), 1)
MAPS, MAP_TARGET = (
    torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0)),
    torch.arange(32).view(2, 4, 4) % 3,
)


WEIGHT = torch.tensor([1.0, 5.0, 0.5])


def of(source, prediction=LOGITS, target=TARGET, **options):
    call = source.forward if isinstance(source, nn.Module) else source
    return Criterion(source, call, options, prediction, target)


class Wrapped(nn.Module):
    """Somebody's module around torch's loss, which divides by the weights of the batch."""

    def __init__(self, reduction="mean"):
        super().__init__()
        self.reduction = reduction

    def forward(self, logits, target):
        return F.cross_entropy(logits, target, WEIGHT, reduction=self.reduction)


class Noisy(Wrapped):
    def forward(self, logits, target):
        return super().forward(logits + torch.randn_like(logits), target)


def somebodys(logits, target, reduction="mean"):
    return F.cross_entropy(logits, target, ignore_index=1, reduction=reduction)


@pytest.mark.parametrize(
    ("criterion", "logits", "target"),
    [
        (partial(F.cross_entropy, weight=WEIGHT), LOGITS, TARGET),
        (partial(F.cross_entropy, ignore_index=1), LOGITS, TARGET),
        (partial(partial(F.cross_entropy, weight=WEIGHT), reduction="sum"), LOGITS, TARGET),
        (partial(F.binary_cross_entropy_with_logits, pos_weight=WEIGHT), LOGITS, SOFT),
        (Wrapped(), LOGITS, TARGET),
        (Wrapped("sum"), LOGITS, TARGET),
        (somebodys, LOGITS, TARGET),
        (nn.CrossEntropyLoss(), LOGITS, TARGET),
        (nn.CrossEntropyLoss(label_smoothing=0.1), LOGITS, TARGET),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5])), LOGITS, TARGET),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5])), LOGITS, SOFT),
        (nn.CrossEntropyLoss(ignore_index=1), LOGITS, TARGET),
        (nn.CrossEntropyLoss(), LOGITS, SOFT),
        (nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5]), ignore_index=2), MAPS, MAP_TARGET),
        (nn.CrossEntropyLoss(reduction="sum"), LOGITS, TARGET),
        (nn.BCEWithLogitsLoss(pos_weight=torch.tensor([1.0, 2.0, 3.0])), LOGITS, SOFT),
        (nn.BCEWithLogitsLoss(reduction="sum"), LOGITS, SOFT),
        (nn.MSELoss(), LOGITS, SOFT),
        (F.cross_entropy, LOGITS, TARGET),
        (lambda logits, target: F.cross_entropy(logits, target), LOGITS, TARGET),
        (lambda logits, target: F.cross_entropy(logits, target, reduction="none"), LOGITS, TARGET),
    ],
)
def test_reduced_per_sample_losses_are_the_criterions_own_value(criterion, logits, target):
    adapted = of(criterion, logits, target)
    losses = adapted.per_sample(logits, target)
    assert losses.shape == (len(logits),)
    torch.testing.assert_close(adapted.reduce(losses), criterion(logits, target))


def test_a_criterion_that_draws_is_asked_twice_with_the_same_draws():
    torch.manual_seed(0)
    losses = of(Noisy()).per_sample(LOGITS, TARGET)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    torch.testing.assert_close(losses.mean(), Noisy()(LOGITS, TARGET))
    assert torch.equal(torch.get_rng_state(), state)


def test_per_sample_losses_are_each_samples_own_loss():
    losses = of(nn.CrossEntropyLoss()).per_sample(LOGITS, TARGET)
    one_by_one = torch.stack([F.cross_entropy(LOGITS[i : i + 1], TARGET[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(losses, one_by_one)


@pytest.mark.parametrize(
    ("criterion", "given"),
    [(nn.NLLLoss(), LOGITS.log_softmax(1)), (F.nll_loss, LOGITS.log_softmax(1)), (nn.BCELoss(), LOGITS.sigmoid())],
)
def test_log_probabilities_and_probabilities_become_logits_and_back(criterion, given):
    target = SOFT if isinstance(criterion, nn.BCELoss) else TARGET
    adapted = of(criterion, given, target)
    logits = adapted.logits
    torch.testing.assert_close(adapted.from_logits(logits), given)
    torch.testing.assert_close(adapted.reduce(adapted.per_sample(logits, target)), criterion(given, target))
    if not isinstance(criterion, nn.BCELoss):  # raw logits of another network are as good
        torch.testing.assert_close(adapted.reduce(adapted.per_sample(LOGITS, TARGET)), criterion(given, TARGET))


def test_reduction_is_put_back_even_when_the_criterion_fails():
    criterion = nn.CrossEntropyLoss(reduction="sum")
    with pytest.raises(IndexError):
        of(criterion).per_sample(LOGITS, torch.tensor([0, 1, 2, 7]))
    assert criterion.reduction == "sum"


def test_functional_options_count():
    weight = torch.tensor([1.0, 5.0, 0.5])
    adapted = of(F.cross_entropy, weight=weight, reduction="sum")
    torch.testing.assert_close(
        adapted.reduce(adapted.per_sample(LOGITS, TARGET)), F.cross_entropy(LOGITS, TARGET, weight, reduction="sum")
    )


def test_a_criterion_that_couples_samples_is_refused_by_name():
    class Contrast(nn.Module):
        def forward(self, logits, target):
            return (logits @ logits.T).exp().mean()

    with pytest.raises(UserError, match="criterion Contrast is not the mean .* 'reduction'"):
        of(Contrast()).per_sample(LOGITS, TARGET)


@pytest.mark.parametrize(
    "criterion",
    [
        nn.CrossEntropyLoss(weight=torch.tensor([1.0, 5.0, 0.5]), reduction="none"),
        nn.CrossEntropyLoss(ignore_index=1, reduction="none"),
    ],
)
def test_unreduced_values_are_the_criterions_own(criterion):
    adapted = of(criterion)
    torch.testing.assert_close(adapted.reduce(adapted.per_sample(LOGITS, TARGET)), criterion(LOGITS, TARGET))


def test_batchmean_is_the_mean_of_the_samples_sums():
    criterion = nn.KLDivLoss(reduction="batchmean")
    given = LOGITS.log_softmax(1)
    adapted = of(criterion, given, SOFT)
    torch.testing.assert_close(adapted.reduce(adapted.per_sample(given, SOFT)), criterion(given, SOFT))


def test_unreduced_values_that_are_no_samples_are_refused():
    with pytest.raises(UserError, match=r"criterion BCEWithLogitsLoss returns \(4, 3\) values unreduced"):
        of(nn.BCEWithLogitsLoss(reduction="none"), target=SOFT).per_sample(LOGITS, SOFT)
    with pytest.raises(UserError, match=r"binary_cross_entropy_with_logits returns \(4, 3\) values unreduced"):
        of(F.binary_cross_entropy_with_logits, target=SOFT, reduction="none").per_sample(LOGITS, SOFT)


class Unreduced(nn.Module):
    """Somebody's module that gives a value a sample, and does not say so."""

    def forward(self, logits, target):
        return F.cross_entropy(logits, target, reduction="none")


class WithoutReduction(Unreduced):
    reduction = None


class CalledUnreduced(nn.Module):
    def forward(self, logits, target, reduction="none"):
        return F.cross_entropy(logits, target, reduction=reduction)


@pytest.mark.parametrize(
    ("criterion", "prediction", "target"),
    [
        (Unreduced(), LOGITS, TARGET),
        (WithoutReduction(), LOGITS, TARGET),
        (CalledUnreduced(), LOGITS, TARGET),
        (CalledUnreduced().forward, LOGITS, TARGET),
        (partial(somebodys, reduction="none"), LOGITS, TARGET),
        (sigmoid_focal_loss, LOGITS[:, 0], SOFT[:, 0]),
    ],
)
def test_a_value_a_sample_stays_a_value_a_sample(criterion, prediction, target):
    adapted = of(criterion, prediction, target)
    losses = adapted.reduce(adapted.per_sample(prediction, target))
    torch.testing.assert_close(losses, criterion(prediction, target))
    assert adapted.reduce(torch.ones(4)).shape == (4,)  # also where an objective has losses of its own


class SelfNormalized(Wrapped):
    """A focal loss whose mean divides by weights that depend on the logits."""

    def forward(self, logits, target):
        losses = F.cross_entropy(logits, target, reduction="none")
        weight = (1 - (-losses).exp()) ** 2
        return weight * losses if self.reduction == "none" else (weight * losses).sum() / weight.sum()


class Penalized(Wrapped):
    def forward(self, logits, target):
        losses = F.cross_entropy(logits, target, reduction="none")
        return losses if self.reduction == "none" else losses.mean() + 0.1 * logits.square().mean()


@pytest.mark.parametrize("criterion", [SelfNormalized(), Penalized()])
@pytest.mark.parametrize("scale", [1.0, 1e4])  # so certain that every loss is 0
def test_somebodys_own_mean_keeps_its_gradient(criterion, scale):
    target = LOGITS.argmax(1) if scale > 1 else TARGET
    given = (scale * LOGITS).requires_grad_()
    own = criterion(given, target)
    (expected,) = torch.autograd.grad(own, given)
    adapted = of(criterion, given, target)
    value = adapted.reduce(adapted.per_sample(given, target))
    torch.testing.assert_close(value, own, equal_nan=True)
    torch.testing.assert_close(torch.autograd.grad(value, given)[0], expected, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_saturated_probabilities_reach_the_criterion_as_they_are(dtype):
    raw = torch.tensor([[40.0], [-3.0], [6.5], [-120.0], [-120.0]], dtype=dtype, requires_grad=True)
    target = torch.tensor([[0.0], [0.0], [1.0], [0.0], [1.0]], dtype=dtype)
    given = raw.sigmoid()
    own = F.binary_cross_entropy(given, target)
    (expected,) = torch.autograd.grad(own, raw, retain_graph=True)
    adapted = of(nn.BCELoss(), given, target)
    value = adapted.reduce(adapted.per_sample(adapted.logits, target))
    torch.testing.assert_close(value, own)
    torch.testing.assert_close(torch.autograd.grad(value, raw, retain_graph=True)[0], expected)

    assert adapted.logits.dtype == dtype
    assert adapted.logits.isfinite().all()
    losses = adapted.per_sample(adapted.logits + 0.5, target)  # an objective replaced them
    assert torch.autograd.grad(losses.mean(), raw)[0].isfinite().all()


def test_the_default_of_a_signature_is_the_reduction():
    def summed(logits, target, reduction="sum"):
        return F.cross_entropy(logits, target, reduction=reduction)

    losses = of(summed).per_sample(LOGITS, TARGET)
    torch.testing.assert_close(losses, F.cross_entropy(LOGITS, TARGET, reduction="none"))
    torch.testing.assert_close(of(summed).reduce(losses), summed(LOGITS, TARGET))

"""The long tail of real multi-label data: 45 findings in the 1,920 training labels of RFMiD, two of them in nobody.

The labels only: where images are needed they are blank.
"""

import csv

import pytest
import torch
from torch import nn

from medbolt.core import ClassificationTask, ImageDataModule, ImageDataset
from medbolt.core.losses import tell_class_counts
from medbolt.longtail import (
    AsymmetricLoss,
    ClassBalancedLoss,
    ClassBalancedSampler,
    ClassGroups,
    DistributionBalancedLoss,
    EqualizationLoss,
    FocalLoss,
    ProgressivelyBalancedSampler,
    RepeatFactorSampler,
    Resampled,
    ReverseSampler,
    SquareRootSampler,
    TwoWayLoss,
    WeightedBinaryCrossEntropyLoss,
    class_weights,
)

pytestmark = pytest.mark.data

EMPTY, TINY = {"HR", "ODPM"}, {"CB", "VH", "MCA", "VS", "PLQ", "HPED", "CL", "PRH", "CRAO", "BRAO"}
LOSSES = {
    "weighted BCE": lambda **o: WeightedBinaryCrossEntropyLoss(num_samples=1920, **o),
    "weighted BCE, N from the counts": WeightedBinaryCrossEntropyLoss,
    "asymmetric": AsymmetricLoss,
    "distribution-balanced": lambda **o: DistributionBalancedLoss(num_samples=1920, **o),
    "distribution-balanced, N from the counts": DistributionBalancedLoss,
    "two-way": TwoWayLoss,
    "focal": lambda **o: FocalLoss(activation="sigmoid", **o),
    "class-balanced focal": ClassBalancedLoss,
    "class-balanced sigmoid": lambda **o: ClassBalancedLoss("sigmoid", **o),
    "EQL": lambda **o: EqualizationLoss(activation="sigmoid", num_samples=1920, **o),
}
each_loss = pytest.mark.parametrize("make", LOSSES.values(), ids=LOSSES)


class Fundus(ImageDataModule):
    """The labels, on blank images of one pixel; validation and test are the training labels again."""

    def __init__(self, names, labels):
        super().__init__(batch_size=64, image_size=None)
        self.names, self.labels = names, labels

    def load(self, split):
        images = torch.zeros(len(self.labels), 3, 1, 1, dtype=torch.uint8)
        return ImageDataset(images, self.labels, [f"{split}{i}" for i in range(len(self.labels))])

    @property
    def class_names(self):
        return self.names


@pytest.fixture(scope="session")
def rfmid(shared_data):
    """Names of the findings, and (1920, 45) labels."""
    with (shared_data / "rfmid/RFMiD_Training_Labels.csv").open() as file:
        header, *rows = csv.reader(file)
    return header[2:], torch.tensor([[float(value) for value in row[2:]] for row in rows])


@pytest.fixture
def labels(rfmid):
    return rfmid[1]


@pytest.fixture
def counts(rfmid):
    return Fundus(*rfmid).class_counts


def test_counts_groups_and_weights_are_those_of_the_data(rfmid):
    names, data = rfmid[0], Fundus(*rfmid)
    counts = dict(zip(names, data.class_counts, strict=True))
    assert (data.train_size, data.num_classes, sum(counts.values())) == (1920, 45, 2069)
    assert sorted(counts.values(), reverse=True)[:8] == [376, 317, 282, 186, 138, 101, 100, 73]
    assert {name for name, count in counts.items() if count == 0} == EMPTY
    assert {name for name, count in counts.items() if count in (1, 2)} == TINY
    groups = ClassGroups.by_count(data.class_counts)
    assert [len(group) for group in (groups.head, groups.medium, groups.tail)] == [6, 10, 29]
    for weighting in ("inverse", "sqrt", "effective", "log"):
        weights = class_weights(torch.tensor(data.class_counts).double(), weighting)
        assert {names[c] for c in (weights == 0).nonzero()} == EMPTY
        assert weights.isfinite().all()
        assert weights.sum() == pytest.approx(43)


def expected_draws(labels, class_probability):
    """Return how probable each image is, drawn label by label, in a plain loop; the healthy are the last class."""
    probability = torch.zeros(len(labels), dtype=torch.float64)
    members = [column.nonzero()[:, 0] for column in labels.T] + [(labels.sum(1) == 0).nonzero()[:, 0]]
    weights = [class_probability(len(m)) if len(m) else 0.0 for m in members]
    for m, weight in zip(members, weights, strict=True):
        for i in m.tolist():
            probability[i] += weight / sum(weights) / len(m)
    return probability


@pytest.mark.parametrize(
    ("kind", "epoch", "class_probability"),
    [
        (ClassBalancedSampler, 0, lambda n: 1.0),
        (SquareRootSampler, 0, lambda n: n**0.5),
        (ReverseSampler, 0, lambda n: 1 / n),
        (ProgressivelyBalancedSampler, 25, lambda n: 0.5 * n / (2069 + 401) + 0.5 / 44),
    ],
)
def test_findings_are_drawn_as_often_as_the_formula_says(labels, kind, epoch, class_probability):
    probability = expected_draws(labels, class_probability)
    assert probability.sum() == pytest.approx(1)
    drawn = torch.zeros(1920, dtype=torch.float64)
    for seed in range(10):
        sampler = kind(labels, seed=seed)
        sampler.set_epoch(epoch)
        drawn += torch.bincount(torch.tensor([int(i) for i in sampler]), minlength=1920)
    # an empty finding has no images: what is drawn for it by mistake is missing elsewhere
    with_healthy = torch.cat([labels, (labels.sum(1) == 0).float()[:, None]], 1).double()
    observed, share = drawn @ with_healthy, probability @ with_healthy
    assert drawn.sum() == 19200
    assert ((observed - 19200 * share).abs() <= 4 * (19200 * share * (1 - share)).sqrt() + 1e-9).all()
    assert (drawn[probability * 19200 > 20] > 0).all()


def test_repeat_factors_are_those_of_the_rarest_finding(labels):
    frequency = labels.sum(0) / 1920
    factors = []
    for row in labels:
        present = row.nonzero()[:, 0].tolist()
        factors.append(max([1.0, *((0.1 / float(frequency[c])) ** 0.5 for c in present)]))
    factors = torch.tensor(factors, dtype=torch.float64)
    drawn = torch.zeros(40, 1920, dtype=torch.float64)
    for epoch in range(40):
        sampler = RepeatFactorSampler(labels, threshold=0.1)
        sampler.set_epoch(epoch)
        drawn[epoch] = torch.bincount(torch.tensor([int(i) for i in sampler]), minlength=1920)
    assert (drawn >= 1).all()
    assert ((drawn - factors).abs() < 1.01).all()  # all are stretched a little, to a whole number of draws
    assert factors.max() == pytest.approx(192**0.5)
    for factor in factors.unique():
        of_factor, fraction = drawn[:, factors == factor], float(factor % 1)
        deviation = (fraction * (1 - fraction) / of_factor.numel()) ** 0.5
        assert of_factor.mean() == pytest.approx(float(factor), abs=4 * deviation + 2e-3)


@each_loss
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_losses_and_gradients_are_finite_on_the_whole_tail(labels, counts, make, dtype):
    loss = make()
    tell_class_counts(loss, counts)
    logits = (torch.randn(1920, 45, generator=torch.Generator().manual_seed(0)) * 5).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
        value = loss(logits, labels)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@each_loss
def test_a_batch_of_the_healthy_teaches_that_nothing_is_there(labels, counts, make):
    healthy = labels[labels.sum(1) == 0][:8]
    loss = make()
    tell_class_counts(loss, counts)
    logits = torch.ones(8, 45, requires_grad=True)
    loss(logits, healthy).backward()
    assert logits.grad.isfinite().all()
    if isinstance(loss, TwoWayLoss):  # which ranks present above absent ones: there is nothing to rank
        assert not logits.grad.any()
        return
    common = torch.tensor(counts) > 100
    assert (logits.grad[:, common] > 0).all()
    assert (logits.grad >= 0).all()


@each_loss
def test_the_rarest_finding_is_raised_where_it_is_present(labels, counts, make):
    column = counts.index(1)
    row = labels[labels[:, column] == 1]
    loss = make()
    tell_class_counts(loss, counts)
    logits = torch.zeros(1, 45, requires_grad=True)
    loss(logits, row).backward()
    assert logits.grad[0, column] < 0


@pytest.mark.parametrize("make", [WeightedBinaryCrossEntropyLoss, DistributionBalancedLoss, EqualizationLoss])
def test_a_task_tells_the_number_of_images_not_of_findings(rfmid, make, make_trainer):
    criterion = EqualizationLoss(activation="sigmoid") if make is EqualizationLoss else make()
    task = ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(3, 45)), 45, "multilabel", criterion=criterion)
    run = make_trainer(limit_train_batches=1, limit_val_batches=0)
    run.fit(task, Resampled(Fundus(*rfmid), RepeatFactorSampler))
    assert criterion.num_samples == 1920
    assert criterion.samples(criterion.class_counts) == 1920


@each_loss
def test_a_task_fits_and_validates(rfmid, make, make_trainer):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 45))
    task = ClassificationTask(network, 45, "multilabel", criterion=make())
    run = make_trainer(limit_train_batches=3, limit_val_batches=2, num_sanity_val_steps=0)
    run.fit(task, Resampled(Fundus(*rfmid), RepeatFactorSampler))
    assert run.callback_metrics["train/loss"].isfinite()
    assert run.callback_metrics["val/loss"].isfinite()
    assert all(p.isfinite().all() for p in task.parameters())

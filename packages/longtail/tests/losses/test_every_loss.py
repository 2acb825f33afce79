"""What holds for every loss: reductions, precisions, devices of use, and odd batches."""

import copy

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader

from medbolt.core import ClassificationTask, ImageDataModule, ImageDataset, ObjectiveCallback, UserError
from medbolt.core.losses import tell_class_counts
from medbolt.longtail import (
    AsymmetricLoss,
    BalancedSoftmaxLoss,
    CenterLoss,
    ClassBalancedLoss,
    DistributionBalancedLoss,
    EqualizationLoss,
    FocalLoss,
    GaussianCloudedLogitLoss,
    InfluenceBalancedLoss,
    LabelAwareSmoothingLoss,
    LADELoss,
    LDAMLoss,
    LogitAdjustedLoss,
    RangeLoss,
    SeesawLoss,
    TwoWayLoss,
    VectorScalingLoss,
    WeightedBinaryCrossEntropyLoss,
    WeightedCrossEntropyLoss,
)
from medbolt.longtail.losses.class_counts import ClassCountsLoss

ONE_CLASS = {
    "weighted": WeightedCrossEntropyLoss,
    "weighted, sqrt": lambda **o: WeightedCrossEntropyLoss("sqrt", **o),
    "weighted, effective": lambda **o: WeightedCrossEntropyLoss("effective", **o),
    "weighted, log": lambda **o: WeightedCrossEntropyLoss("log", **o),
    "focal": FocalLoss,
    "focal, gamma 0.5": lambda **o: FocalLoss(0.5, **o),
    "focal, sigmoid": lambda **o: FocalLoss(activation="sigmoid", **o),
    "class-balanced focal": ClassBalancedLoss,
    "class-balanced sigmoid": lambda **o: ClassBalancedLoss("sigmoid", **o),
    "class-balanced softmax": lambda **o: ClassBalancedLoss("softmax", **o),
    "balanced softmax": BalancedSoftmaxLoss,
    "logit-adjusted": LogitAdjustedLoss,
    "LDAM": LDAMLoss,
    "vector scaling": VectorScalingLoss,
    "LADE": LADELoss,
    "seesaw": SeesawLoss,
    "SEQL": EqualizationLoss,
    "EQL": lambda **o: EqualizationLoss(activation="sigmoid", **o),
    "label-aware smoothing": LabelAwareSmoothingLoss,
    "GCL": GaussianCloudedLogitLoss,
    "GCL, second stage": lambda **o: GaussianCloudedLogitLoss(gamma=1.0, **o),
    "influence-balanced": InfluenceBalancedLoss,
}
ON_FEATURES = {"range": RangeLoss, "center": lambda **o: CenterLoss(5, 5, **o)}
MANY_LABELS = {
    "focal, sigmoid": lambda **o: FocalLoss(activation="sigmoid", **o),
    "class-balanced focal": ClassBalancedLoss,
    "class-balanced sigmoid": lambda **o: ClassBalancedLoss("sigmoid", **o),
    "EQL": lambda **o: EqualizationLoss(activation="sigmoid", num_samples=600, **o),
    "asymmetric": AsymmetricLoss,
    "asymmetric, gamma 0.5": lambda **o: AsymmetricLoss(0.5, 0.5, **o),
    "asymmetric, no margin": lambda **o: AsymmetricLoss(margin=0.0, **o),
    "distribution-balanced": lambda **o: DistributionBalancedLoss(num_samples=600, **o),
    "two-way": TwoWayLoss,
    "weighted BCE": lambda **o: WeightedBinaryCrossEntropyLoss(num_samples=600, **o),
}
HARD_ONLY = {"seesaw", *ON_FEATURES}
RANDOM = {"SEQL", "GCL", "GCL, second stage"}
EVERY = [("hard", name, make) for name, make in {**ONE_CLASS, **ON_FEATURES}.items()]
EVERY += [("soft", name, make) for name, make in ONE_CLASS.items() if name not in HARD_ONLY]
EVERY += [("labels", name, make) for name, make in MANY_LABELS.items()]
SINGLE = [case for case in EVERY if case[0] == "hard"]

every_case = pytest.mark.parametrize(("kind", "name", "make"), EVERY, ids=lambda value: str(value)[:40])


def build(make, counts, **options):
    torch.manual_seed(0)
    loss = make(**options)
    tell_class_counts(loss, counts)
    return loss


def seeded(loss, *inputs):
    torch.manual_seed(0)
    return loss(*inputs)


@pytest.fixture
def targets(target, soft, labels):
    return {"hard": target, "soft": soft, "labels": labels}


@every_case
def test_mean_and_sum_reduce_what_none_returns(kind, name, make, logits, targets, counts):
    none, mean, total = (
        seeded(build(make, counts, reduction=r), logits, targets[kind]) for r in ("none", "mean", "sum")
    )
    assert none.shape[0] == len(logits)
    torch.testing.assert_close(none.mean(), mean)
    torch.testing.assert_close(none.sum(), total)


@every_case
def test_gradient_is_that_of_the_value(kind, name, make, logits, targets, counts):
    if name in ("seesaw", "influence-balanced", "GCL, second stage"):
        pytest.skip("takes a factor as a constant on purpose")
    loss = build(make, counts).double()
    if name == "range":
        logits = logits + torch.arange(len(logits))[:, None] ** 1.5  # no ties among distances
    assert torch.autograd.gradcheck(lambda z: seeded(loss, z, targets[kind]), logits.requires_grad_())


@every_case
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("size", [1.0, 1000.0])
def test_half_precision_and_extreme_logits_stay_finite(kind, name, make, dtype, size, logits, targets, counts):
    target = targets[kind] if kind == "hard" else targets[kind].to(dtype)
    logits = (logits * size).to(dtype).requires_grad_()
    loss = build(make, counts)
    with torch.autocast("cpu", dtype):
        value = loss(logits, target)
    value.backward()
    assert value.dtype == torch.float32
    assert value.isfinite()
    assert logits.grad.isfinite().all()


OPTIONS = {
    "LDAM": (LDAMLoss, {"max_margin": 0.1, "scale": 2.0}),
    "weighted": (WeightedCrossEntropyLoss, {"power": 0.3}),
    "class-balanced": (ClassBalancedLoss, {"beta": 0.9}),
    "vector scaling": (VectorScalingLoss, {"gamma": 0.7}),
    "label-aware smoothing": (LabelAwareSmoothingLoss, {"head_smoothing": 0.2}),
}


@pytest.mark.parametrize(("kind", "options"), OPTIONS.values(), ids=OPTIONS)
def test_an_option_that_changes_counts_at_once(kind, options, logits, target, counts):
    loss = build(kind, counts)
    loss(logits, target)
    for name, value in options.items():
        setattr(loss, name, value)
    torch.testing.assert_close(loss(logits, target), build(kind, counts, **options)(logits, target))
    torch.testing.assert_close(loss.double()(logits.double(), target).float(), loss(logits, target).float())


@every_case
def test_autocast_does_not_round_what_a_loss_computes(kind, name, make, logits, targets, counts):
    values = []
    for enabled in (False, True):
        leaf = logits.float().detach().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            value = seeded(build(make, counts), leaf, targets[kind])
        values.append((value, *torch.autograd.grad(value, leaf)))
    torch.testing.assert_close(values[1], values[0])


@every_case
def test_a_class_without_samples_may_be_the_target(kind, name, make, logits, targets, counts):
    target = targets[kind].clone()
    target[2:4] = 4 if kind == "hard" else torch.eye(5, dtype=torch.float64)[4]
    value = build(make, counts)(logits.requires_grad_(), target)
    value.backward()
    assert value.isfinite()
    assert logits.grad.isfinite().all()


@every_case
def test_a_batch_of_one(kind, name, make, logits, targets, counts):
    for row in (slice(0, 1), slice(3, 4)):
        values = logits[row].clone().requires_grad_()
        value = build(make, counts)(values, targets[kind][row])
        value.backward()
        assert value.isfinite()
        assert values.grad.isfinite().all()


@every_case
def test_balanced_counts(kind, name, make, logits, targets):
    assert build(make, [20] * 5)(logits, targets[kind]).isfinite()


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[1] not in ON_FEATURES])
def test_renaming_classes_changes_nothing(kind, name, make, logits, targets, counts, monkeypatch):
    order = torch.tensor([3, 0, 4, 2, 1])
    target = targets[kind]
    renamed = order.argsort()[target] if kind == "hard" else target[:, order]
    losses = build(make, counts, reduction="none"), build(make, [counts[i] for i in order], reduction="none")
    draws = torch.randn(logits.shape, generator=torch.Generator().manual_seed(0), dtype=logits.dtype)
    for draw in ("randn_like", "rand_like"):  # what is drawn for an entry moves with it
        monkeypatch.setattr(torch, draw, lambda like: (draws if like is logits else draws[:, order]).clone())
    expected = losses[0](logits, target)
    torch.testing.assert_close(
        losses[1](logits[:, order], renamed), expected[:, order] if expected.ndim == 2 else expected
    )


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[1] not in ON_FEATURES])
def test_one_logit_for_two_classes_is_refused(kind, name, make, counts):
    with pytest.raises(UserError, match=r"needs logits of shape \(B, C\), .* got \(4,\); .*task='multiclass'"):
        build(make, counts)(torch.zeros(4), torch.ones(4))


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[0] == "soft"])
def test_one_hot_rows_are_class_indices(kind, name, make, logits, target, one_hot, counts):
    loss = build(make, counts, reduction="none")
    torch.testing.assert_close(seeded(loss, logits, one_hot(target)), seeded(loss, logits, target))


@pytest.mark.parametrize("name", sorted(HARD_ONLY))
def test_soft_targets_without_a_formula_are_refused(name, logits, soft, counts):
    with pytest.raises(UserError, match="defined for class indices"):
        build({**ONE_CLASS, **ON_FEATURES}[name], counts)(logits, soft)


@every_case
def test_counts_are_told_late_kept_if_given_and_asked_for_if_missing(kind, name, make, logits, targets, counts):
    if not isinstance(make(), ClassCountsLoss):
        pytest.skip("needs no counts")
    with pytest.raises(UserError, match=r"pass class_counts=\[\.\.\.\]"):
        make()(logits, targets[kind])
    given = make(class_counts=counts)
    tell_class_counts(given, [7] * 5)
    assert given.class_counts.tolist() == counts
    told = make()
    tell_class_counts(told, [7] * 5)
    told(logits, targets[kind])
    tell_class_counts(told, counts)
    torch.testing.assert_close(seeded(told, logits, targets[kind]), seeded(given, logits, targets[kind]))


@every_case
def test_counts_are_not_in_the_checkpoint_and_follow_copies(kind, name, make, counts):
    loss = build(make, counts)
    assert "class_counts" not in loss.state_dict()
    copied = copy.deepcopy(loss).half()
    if isinstance(loss, ClassCountsLoss):
        assert copied.class_counts.tolist() == counts


class Data(ImageDataModule):
    """Five classes that brightness tells apart, a long tail of them for training."""

    def __init__(self, kind):
        super().__init__(batch_size=16, image_size=None)
        self.kind = kind

    def load(self, split):
        target = torch.repeat_interleave(torch.arange(5), torch.tensor([30, 15, 8, 4, 2]))
        images = (target * 50)[:, None, None, None].expand(-1, 3, 4, 4).to(torch.uint8)
        if self.kind == "labels":
            target = torch.stack([target >= c for c in range(5)], 1).float()
        return ImageDataset(images, target, [f"{split}{i}" for i in range(len(target))])

    @property
    def class_names(self):
        return list("abcde")


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 5))


def trainer(tmp_path, *callbacks, **options):
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(
        accelerator="cpu", max_epochs=1, enable_checkpointing=False, callbacks=[*callbacks],
        default_root_dir=tmp_path, **quiet, **options,
    )  # fmt: skip


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[0] != "soft"])
def test_trains_inside_a_task_that_tells_the_counts(kind, name, make, tmp_path):
    task = ClassificationTask(network(), 5, "multilabel" if kind == "labels" else "multiclass", criterion=make())
    before = copy.deepcopy(task.model.state_dict())
    run = trainer(tmp_path)
    run.fit(task, Data(kind))
    assert run.callback_metrics["train/loss"].isfinite()
    assert run.callback_metrics["val/loss"].isfinite()
    assert not torch.equal(task.model[1].weight, before["1.weight"])


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[0] != "soft"])
def test_a_task_is_tested_on_data_whose_counts_it_was_never_told(kind, name, make, tmp_path):
    """The loss is unknown where it depends on counts, the metrics are as ever."""
    task = ClassificationTask(network(), 5, "multilabel" if kind == "labels" else "multiclass", criterion=make())
    loader = Data(kind).test_dataloader()
    metrics = trainer(tmp_path).test(task, loader, verbose=False)[0]
    assert 0 <= metrics["test/auroc"] <= 1
    needs_counts = isinstance(make(), ClassCountsLoss) and name not in {*RANDOM, "EQL"}
    assert (metrics["test/loss"] != metrics["test/loss"]) == needs_counts


class Foreign(LightningModule):
    """Somebody else's module, which knows nothing of medbolt."""

    def __init__(self, loss):
        super().__init__()
        self.model, self.criterion = network(), loss

    def training_step(self, batch, batch_idx):
        return self.criterion(self.model(batch["image"]), batch["target"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[0] != "soft"])
def test_an_objective_callback_sees_its_losses_sample_by_sample(kind, name, make, tmp_path):
    seen = []

    class Watch(ObjectiveCallback):
        def objective(self, step):
            seen.append(step.loss())
            return seen[-1]

    data = Data(kind)
    trainer(tmp_path, Watch(), limit_train_batches=1).fit(Foreign(build(make, data.class_counts)), data)
    assert seen[0].shape == (16,)
    assert seen[0].isfinite().all()


@pytest.mark.parametrize(("kind", "name", "make"), [case for case in EVERY if case[0] != "soft"])
def test_a_plain_loop_learns(kind, name, make):
    data = Data(kind).dataset("train")
    loss = build(make, [30, 15, 8, 4, 2])
    images = torch.stack([data[i]["image"] for i in range(len(data))]).float() / 255 - 0.4
    loader = DataLoader(list(zip(images, data.targets, strict=True)), batch_size=59)
    model = network()
    optimizer = torch.optim.Adam([*model.parameters(), *loss.parameters()], 0.01)
    values = []
    for _ in range(40):
        for image, target in loader:
            value = seeded(loss, model(image), target)
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
            values.append(value.item())
    assert values[-1] < values[0]


@pytest.mark.parametrize("name", {**ONE_CLASS, **MANY_LABELS})
def test_a_task_of_several_labels_refuses_what_compares_classes(name):
    loss = MANY_LABELS[name]() if name in MANY_LABELS else ONE_CLASS[name]()
    if name in MANY_LABELS:
        ClassificationTask(network(), 5, task="multilabel", criterion=loss)
    else:
        with pytest.raises(UserError, match="Loss compares classes of which a sample has one, and would not learn"):
            ClassificationTask(network(), 5, task="multilabel", criterion=loss)

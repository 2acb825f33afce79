import pytest
import torch
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ObjectiveCallback, UserError
from medbolt.longtail import InfluenceBalancedLoss, InfluenceBalancing

COUNTS = [90, 9, 1]


class Outer(ObjectiveCallback):
    """Stands outside and keeps what a step shows with what it was given."""

    def __init__(self):
        super().__init__(features="model.4")
        self.seen = []

    def objective(self, step):
        losses = step.loss()
        now = step.logits.detach(), step.target, step.features.detach(), losses.detach()
        self.seen.append((step.module.current_epoch, *now))
        return losses


def by_hand(logits, target, features):
    total = sum(1 / n for n in COUNTS) / 3
    losses = []
    for z, y, h in zip(logits, target, features, strict=True):
        p = z.softmax(0)
        one_hot = torch.eye(3)[y]
        influence = (p - one_hot).abs().sum() * h.abs().sum() + 1e-3
        losses.append(1000 / COUNTS[y] / total * -p[y].log() / influence)
    return torch.stack(losses)


def test_it_is_the_formula_with_features_from_its_epoch_on_and_the_criterion_before():
    outer = Outer()
    callback = InfluenceBalancing(InfluenceBalancedLoss(1000.0, class_counts=COUNTS), 0.5, features="model.4")
    trainer(callback, outer, epochs=2).fit(ToyClassifier(lr=1e-4), datamodule=ToyImages())
    for epoch, logits, target, features, losses in outer.seen:
        plain = nn.functional.cross_entropy(logits, target, reduction="none")
        torch.testing.assert_close(losses, by_hand(logits, target, features) if epoch else plain, rtol=1e-4, atol=1e-6)
    assert {seen[0] for seen in outer.seen} == {0, 1}


def test_the_loss_is_told_the_data_module_s_counts_each_time():
    loss = InfluenceBalancedLoss()
    callback = InfluenceBalancing(loss, 0, features="model.4")
    for size, counts in ((24, [8, 8, 8]), (25, [9, 8, 8])):
        trainer(callback, limit_train_batches=1).fit(ToyClassifier(), datamodule=ToyImages({"train": size}))
        assert loss.class_counts.tolist() == counts
    assert loss.reduction == "mean"


def test_gradients_are_finite_under_bfloat16_and_for_a_batch_of_one():
    for size, precision in ((4, "bf16-mixed"), (1, "32-true")):
        module = ToyClassifier()
        module.model[1] = nn.Identity()
        callback = InfluenceBalancing(InfluenceBalancedLoss(1000.0), 0, features="model.4")
        trainer(callback, precision=precision).fit(module, datamodule=ToyImages(batch_size=size))
        assert weights(module).isfinite().all()


def test_what_is_missing_is_named():
    loss = InfluenceBalancedLoss()
    with pytest.raises(UserError, match="has no layer features='model.features'"):
        trainer(InfluenceBalancing(loss)).fit(ToyClassifier(), datamodule=ToyImages())
    with pytest.raises(UserError, match="InfluenceBalancing needs to know how many training samples"):
        trainer(InfluenceBalancing(loss, features="model.4")).fit(ToyClassifier(), ToyImages().train_dataloader())
    with pytest.raises(ValueError, match="start must be"):
        InfluenceBalancing(loss, -1)


def test_a_task_of_several_findings_is_refused():
    module = ToyClassifier()
    module.task = "multilabel"
    callback = InfluenceBalancing(InfluenceBalancedLoss(1000.0, class_counts=COUNTS), 0, features="model.4")
    with pytest.raises(UserError, match="InfluenceBalancedLoss compares classes of which a sample has one"):
        trainer(callback).fit(module, datamodule=ToyImages())

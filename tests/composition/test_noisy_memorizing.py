"""Methods of medbolt-noisy that remember samples, with losses, data and diagnostics of others."""

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from toys import ToyImages, trainer

from medbolt.core import ClassificationTask, EvaluationTransform, MultiView, ObjectiveCallback
from medbolt.longtail import LogitAdjustedLoss
from medbolt.noisy import DISC, EarlyLearningRegularization, MixUp, NoisyLabels, SelectionQuality, SymmetricNoise

TARGETS = [0] * 12 + [1] * 8 + [2] * 4


class LongTail(ToyImages):
    def load(self, split):
        dataset = super().load(split)
        if split == "train":
            dataset.targets.copy_(torch.tensor(TARGETS))
        return dataset


class Watches(ObjectiveCallback):
    """Outermost: keeps the first batch's mean loss, logits and targets."""

    found: tuple | None = None

    def objective(self, step):
        losses = step.loss()
        self.found = self.found or (losses.detach().mean(), step.logits.detach(), step.target)
        return losses


def task(criterion: nn.Module | None = None) -> ClassificationTask:
    torch.manual_seed(0)
    return ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), 3, criterion=criterion)


@pytest.mark.parametrize("inner", [[], [MixUp()]], ids=["alone", "over mixup"])
def test_elr_over_logit_adjustment(inner):
    watches, regularization = Watches(), EarlyLearningRegularization(weight=2.0)
    callbacks: list[Callback] = [*inner, regularization, watches]
    trainer(*callbacks, max_steps=1, epochs=1).fit(task(LogitAdjustedLoss()), datamodule=LongTail())
    assert watches.found is not None
    loss, logits, target = watches.found
    p = logits.softmax(1)
    term = 2 * torch.log(1 - 0.3 * p.square().sum(1)).mean()
    if not inner:
        adjusted = nn.functional.cross_entropy(logits + torch.tensor([12.0, 8.0, 4.0]).log(), target)
        torch.testing.assert_close(loss, adjusted + term, rtol=1e-4, atol=1e-5)
    assert loss.isfinite()
    assert regularization.memory is not None
    assert regularization.memory.seen.sum() == 4
    assert (regularization.memory["target"].sum(1) > 0).sum() == 4


def test_disc_tells_what_it_selects_and_corrects():
    views = MultiView([EvaluationTransform(8), EvaluationTransform(8)])
    data = NoisyLabels(ToyImages(train_transform=views), SymmetricNoise(0.4))
    fit = trainer(DISC(1, sigma=0.0, momentum=0.0), SelectionQuality(), epochs=3)
    fit.fit(task(), datamodule=data)
    logged = fit.callback_metrics
    assert 0 < logged["lnl/select/precision"] <= 1
    assert 0 < logged["lnl/select/recall"] <= 1

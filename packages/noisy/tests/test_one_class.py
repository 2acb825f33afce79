"""Methods that compare probabilities of classes refuse targets of several findings a sample."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from toys import ToyClassifier, ToyImages, trainer

from medbolt import noisy
from medbolt.core import ClassificationTask, ImageDataset, UserError
from medbolt.core.objective.step import Capture, TrainingStep
from medbolt.noisy.one_class import OneClassTargets, require_one_class

METHODS = {
    "ELR": lambda: noisy.EarlyLearningRegularization(),
    "ELR+": lambda: noisy.EarlyLearningRegularizationPlus(),
    "SELC": lambda: noisy.SelfEnsembleLabelCorrection(start_epoch=5),
    "SOP": lambda: noisy.SparseOverParameterization(),
    "DISC": lambda: noisy.DISC(),
    "SSR": lambda: noisy.SampleSelectionAndRelabelling(start_epoch=5),
    "JoCoR": lambda: noisy.JoCoR(0.4),
    "CoDis": lambda: noisy.CoDis(0.4),
    "Co-teaching+": lambda: noisy.CoTeachingPlus(0.4),
    "VolMinNet": lambda: noisy.VolMinNet(),
    "T-Revision": lambda: noisy.TRevision(5, 5),
}
FINDINGS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0]])


class Findings(ToyImages):
    """Each sample has the first of three findings, and by turns the second one too."""

    def load(self, split):
        dataset = super().load(split)
        targets = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]]).repeat(len(dataset), 1)[: len(dataset)]
        return ImageDataset(dataset.images, targets, dataset.ids)


class Foreign(ToyClassifier):
    """Does not say what its task is."""

    def __init__(self) -> None:
        super().__init__()
        self.criterion = nn.BCEWithLogitsLoss()


def known_task() -> ClassificationTask:
    return ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), 3, task="multilabel")


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
@pytest.mark.parametrize("module", [known_task, Foreign])
def test_several_findings_are_refused_in_the_first_batch(module, make):
    method = make()
    says = rf"logits \(4, 3\) for targets \(4, 3\); {type(method).__name__} compares probabilities .* as CoTeaching"
    with pytest.raises(UserError, match=says):
        trainer(method, limit_train_batches=1, limit_val_batches=0).fit(module(), datamodule=Findings())


def test_co_teaching_takes_them():
    trainer(noisy.CoTeaching(0.4), limit_val_batches=0).fit(known_task(), datamodule=Findings())


def step(target: torch.Tensor, logits: torch.Tensor | None = None, **module: Any) -> TrainingStep:
    told: Any = SimpleNamespace(**module)
    logits = torch.zeros(len(target), 3) if logits is None else logits
    return TrainingStep(logits, target, None, told, lambda step: pytest.fail("not used"), Capture("model"))


def test_one_class_a_sample_is_fine_in_any_form():
    soft = torch.rand(64, 30).softmax(1)
    for target in (torch.tensor([0, 2]), torch.tensor([0.0, 1.0]), torch.ones(2, 1), soft, soft.bfloat16()):
        require_one_class(step(target), "not needed.")


def test_several_findings_are_found_by_their_rows_or_the_task_and_maps_by_their_shape():
    one_each = torch.eye(3)  # by chance
    require_one_class(step(one_each), "not needed.")
    for wrong in (step(FINDINGS), step(one_each, task="multilabel"), step(one_each, torch.zeros(3, 3, 4, 4))):
        with pytest.raises(UserError, match=r"SimpleNamespace predicts logits .*; that is that\."):
            require_one_class(wrong, "that is that.")


def test_only_the_first_batch_of_a_module_is_looked_at():
    first, targets = step(torch.eye(3)), OneClassTargets("ELR")
    targets.require(first)
    later: Any = SimpleNamespace(module=first.module)  # neither logits nor targets to look at
    targets.require(later)
    with pytest.raises(UserError, match="ELR compares"):
        targets.require(step(FINDINGS))

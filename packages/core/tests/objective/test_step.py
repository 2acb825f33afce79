from dataclasses import FrozenInstanceError

import pytest
import torch
from lightning.pytorch import LightningModule
from torch import nn

from medbolt.core.errors import UserError
from medbolt.core.objective.step import Capture, TrainingStep

LOGITS, TARGET = torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.5, 0.5]]), torch.tensor([0, 0, 1])


def cross_entropy(step):
    return nn.functional.cross_entropy(step.logits, step.target, reduction="none")


def make(batch=None, index=None, capture=None):
    return TrainingStep(LOGITS, TARGET, batch, LightningModule(), cross_entropy, capture or Capture("model"), index)


def test_loss_is_the_next_objective_inward():
    torch.testing.assert_close(make().loss(), cross_entropy(make()))


def test_logits_and_targets_may_be_replaced():
    step = make()
    other, corrected = LOGITS.flip(0), 1 - TARGET
    torch.testing.assert_close(
        step.loss(other, corrected), nn.functional.cross_entropy(other, corrected, reduction="none")
    )
    torch.testing.assert_close(step.loss(logits=other), nn.functional.cross_entropy(other, TARGET, reduction="none"))
    torch.testing.assert_close(
        step.loss(target=corrected), nn.functional.cross_entropy(LOGITS, corrected, reduction="none")
    )
    assert torch.equal(step.target, TARGET)


def test_a_replacement_reaches_the_objectives_further_in():
    seen = []

    def inward(step):
        seen.append(step.target.tolist())
        return cross_entropy(step)

    TrainingStep(LOGITS, TARGET, None, LightningModule(), inward, Capture("model")).loss(target=1 - TARGET)
    assert seen == [[1, 1, 0]]


def test_a_step_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        make().target = TARGET


@pytest.mark.parametrize(
    ("batch", "index", "expected"),
    [
        ({"index": torch.tensor([5, 6, 7])}, None, [5, 6, 7]),
        ((LOGITS, TARGET), torch.tensor([3, 1, 2]), [3, 1, 2]),
        ({"index": torch.tensor([5, 6, 7])}, torch.tensor([0, 1, 2]), [0, 1, 2]),  # Indexed counts its own data set
    ],
)
def test_the_index_comes_from_indexed_or_from_the_batch(batch, index, expected):
    assert make(batch, index).index.tolist() == expected


@pytest.mark.parametrize("batch", [None, (LOGITS, TARGET), {"image": LOGITS}])
def test_a_missing_index_is_answered_with_the_remedy(batch):
    with pytest.raises(
        UserError, match=r"carries no 'index'; wrap the data module, .*medbolt.core.Indexed\(datamodule\)"
    ):
        make(batch).index  # noqa: B018


def test_an_index_of_another_length_is_refused():
    with pytest.raises(UserError, match="the batch has 4 indices but the criterion got 3 targets"):
        make({"index": torch.arange(4)}).index  # noqa: B018


def test_inputs_and_features_are_what_the_hooks_saw():
    step = make(capture=Capture("model", inputs=(LOGITS, 3), features=TARGET))
    assert step.inputs == (LOGITS, 3)
    assert step.features is TARGET


def test_what_the_hooks_did_not_see_is_named():
    step = make(capture=Capture("net"))
    with pytest.raises(UserError, match="network attribute 'net' of LightningModule was not called .* network='net'"):
        step.inputs  # noqa: B018
    with pytest.raises(UserError, match="no features were captured in LightningModule; name a layer"):
        step.features  # noqa: B018

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from torch import nn

from medbolt.core import UserError
from medbolt.longtail import EvaluationHead, NearestClassMeanHead, TauNormalizedHead


class Seen(Callback):
    """Keeps the head and the probabilities of a test."""

    def __init__(self):
        self.heads, self.probabilities = [], []

    def on_test_batch_end(self, trainer, pl_module, outputs, batch, batch_idx, dataloader_idx=0):
        self.heads.append(pl_module.model[1])
        self.probabilities.append(outputs["probability"])

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.heads.append(pl_module.model[1])


def pixels(data, loader):
    batches = list(getattr(data, loader)())
    return torch.cat([b["image"].flatten(1) for b in batches]), torch.cat([b["target"] for b in batches])


def test_nearest_class_means_are_those_of_the_training_samples(bright, make_task, make_trainer):
    task, data, seen = make_task(), bright(), Seen()
    layer = task.model[1]
    head = EvaluationHead(partial(NearestClassMeanHead, space="un"), "model.1")
    make_trainer(callbacks=[head, seen]).test(task, data, verbose=False)
    expected = NearestClassMeanHead(48, 4, "un")
    expected.fit(*pixels(data, "train_eval_dataloader"))
    images, _ = pixels(data, "test_dataloader")
    torch.testing.assert_close(torch.cat(seen.probabilities), expected(images).softmax(1))
    assert seen.heads[0].count.tolist() == [40, 20, 10, 5]
    assert task.model[1] is layer


def test_tau_is_tuned_on_the_validation_samples(bright, make_task, make_trainer):
    task, data, seen = make_task(), bright(), Seen()
    make_trainer(max_epochs=3).fit(task, data)
    make_trainer(callbacks=[EvaluationHead(partial(TauNormalizedHead, tau=None), "model.1"), seen]).test(
        task, data, verbose=False
    )
    expected = TauNormalizedHead.from_linear(task.model[1], tau=None)
    expected.fit(*pixels(data, "val_dataloader"))
    assert seen.heads[0].tau == expected.tau


def test_fit_trains_the_old_head_and_later_training_goes_on_in_training_mode(bright, make_task, make_trainer):
    task, seen = make_task(), Seen()
    layer = task.model[1]
    callback = EvaluationHead(NearestClassMeanHead, "model.1")
    make_trainer(callbacks=[callback, seen]).fit(task, bright())
    assert all(head is layer for head in seen.heads)
    trainer = make_trainer(callbacks=[callback])
    trainer.validate(task, bright(), verbose=False)
    trainer.predict(task, bright())
    assert task.model[1] is layer
    assert all(part.training for part in task.modules() if isinstance(part, nn.Linear))


def test_after_a_failure_the_old_head_is_back(bright, make_task, make_trainer):
    class Fails(Callback):
        def on_test_batch_end(self, *arguments):
            raise RuntimeError("out of luck")

    task = make_task()
    layer = task.model[1]
    with pytest.raises(RuntimeError, match="out of luck"):
        make_trainer(callbacks=[EvaluationHead(NearestClassMeanHead, "model.1"), Fails()]).test(task, bright())
    assert task.model[1] is layer


def test_data_without_a_training_split_are_named(bright, make_task, make_trainer):
    head = EvaluationHead(NearestClassMeanHead, "model.1")
    with pytest.raises(UserError, match="EvaluationHead is fitted on the training samples, but the data have no"):
        make_trainer(callbacks=[head]).test(make_task(), bright().test_dataloader())


def test_a_network_that_is_not_there_is_named(bright, make_task, make_trainer):
    head = EvaluationHead(NearestClassMeanHead, "model.1", network="net")
    with pytest.raises(UserError, match="no network 'net' whose output EvaluationHead"):
        make_trainer(callbacks=[head]).test(make_task(), bright())

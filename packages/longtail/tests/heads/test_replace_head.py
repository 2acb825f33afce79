from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import EMAWeightAveraging
from torch import nn

from medbolt.core import UserError
from medbolt.longtail import (
    CosineHead,
    DeconfoundedHead,
    DisAlignHead,
    LearnableScalingHead,
    ReplaceHead,
    TauNormalizedHead,
    replace_head,
)


class Foreign(LightningModule):
    """No criterion attribute, no ``model``."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 4))

    def training_step(self, batch, batch_idx):
        return F.cross_entropy(self.net(batch["image"]), batch["target"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.01)


def test_the_new_head_is_trained_with_the_module(bright, make_task, make_trainer):
    task, seen = make_task(), []
    callback = ReplaceHead(partial(CosineHead, scale=16.0), "model.1")
    callback.on_train_start = lambda trainer, module: seen.append(module.model[1].weight.detach().clone())
    make_trainer(callbacks=[callback]).fit(task, bright())
    assert isinstance(task.model[1], CosineHead)
    assert task.model[1].scale == 16
    assert not torch.equal(task.model[1].weight, seen[0])


def test_a_foreign_module_gets_one_too(bright, make_trainer):
    module = Foreign()
    make_trainer(callbacks=[ReplaceHead(CosineHead, "net.3")], limit_val_batches=0).fit(module, bright())
    assert isinstance(module.net[3], CosineHead)


def test_a_checkpoint_is_tested_with_the_callback(bright, make_task, make_trainer, tmp_path):
    task = make_task()
    trainer = make_trainer(callbacks=[ReplaceHead(CosineHead, "model.1")], max_epochs=2)
    trainer.fit(task, bright())
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    (expected,) = trainer.test(task, bright(), verbose=False)
    other = make_trainer(callbacks=[ReplaceHead(CosineHead, "model.1")])
    (found,) = other.test(make_task(), bright(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert found == expected
    torch.load(tmp_path / "last.ckpt", weights_only=True)


def test_a_trained_head_is_not_replaced_again(bright, make_task, make_trainer):
    task = make_task()
    make_trainer(callbacks=[ReplaceHead(CosineHead, "model.1")]).fit(task, bright())
    trained = task.model[1].weight.detach().clone()
    make_trainer(callbacks=[ReplaceHead(CosineHead, "model.1")]).test(task, bright(), verbose=False)
    assert torch.equal(task.model[1].weight, trained)


def test_resumed_equals_uninterrupted_with_a_head_that_keeps_a_mean(bright, make_task, make_trainer, tmp_path):
    def run(epochs, checkpoint=None):
        task = make_task()
        trainer = make_trainer(max_epochs=epochs, callbacks=[ReplaceHead(DeconfoundedHead, "model.1")])
        trainer.fit(task, bright(), ckpt_path=checkpoint)
        return trainer, task

    _, whole = run(4)
    stopped, _ = run(2)
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    _, resumed = run(4, tmp_path / "half.ckpt")
    torch.testing.assert_close(resumed.state_dict(), whole.state_dict(), rtol=0, atol=0)
    assert whole.model[1].mean.any()


def test_a_head_over_a_trained_layer_takes_its_weights(features):
    network = nn.Sequential(nn.Linear(6, 4)).double()
    expected = network(features)
    head = replace_head(network, LearnableScalingHead, "0")
    assert network[0] is head
    torch.testing.assert_close(network(features), expected)


OVER_A_LAYER = [TauNormalizedHead, LearnableScalingHead, DisAlignHead]


@pytest.mark.parametrize("before", OVER_A_LAYER)
@pytest.mark.parametrize("after", OVER_A_LAYER)
def test_a_head_over_a_trained_layer_takes_it_from_another_such_head(linear, before, after):
    network = nn.Sequential(linear)
    replace_head(network, before, "0")
    head = replace_head(network, after, "0")
    assert torch.equal(head.weight, linear.weight)
    assert torch.equal(head.bias, linear.bias)


@pytest.mark.parametrize("before", [CosineHead, DeconfoundedHead])
@pytest.mark.parametrize("after", OVER_A_LAYER)
def test_a_head_over_a_trained_layer_refuses_heads_without_one(before, after):
    network = nn.Sequential(before(6, 4))
    with pytest.raises(UserError, match=f"{after.__name__} lies over a trained .* replace a {before.__name__}, which"):
        replace_head(network, after, "0")
    assert isinstance(network[0], before)


def test_a_head_replaces_a_head():
    network = nn.Sequential(CosineHead(6, 4))
    head = replace_head(network, DeconfoundedHead, "0")
    assert (head.in_features, head.out_features) == (6, 4)


@pytest.mark.parametrize("path", ["model.head", "model.0"])
def test_a_layer_that_is_not_there_is_named(bright, make_task, make_trainer, path):
    with pytest.raises(UserError, match=f"no linear layer '{path}' .* give path one of 'model.1'"):
        make_trainer(callbacks=[ReplaceHead(CosineHead, path)]).fit(make_task(), bright())


def test_an_averaging_that_has_copied_the_old_head_already_is_refused(bright, make_task, make_trainer):
    callbacks = [EMAWeightAveraging(decay=0.5), ReplaceHead(CosineHead, "model.1")]
    with pytest.raises(UserError, match="EMAWeightAveraging stands before ReplaceHead and copies the module"):
        make_trainer(callbacks=callbacks).fit(make_task(), bright())
    make_trainer(callbacks=callbacks[::-1]).fit(make_task(), bright())

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from medbolt.core import ObjectiveCallback, UserError
from medbolt.core.objective.second_view import network_features, network_logits, second_view


class Looks(ObjectiveCallback):
    def objective(self, step):
        self.saw = self.look(step)
        return step.loss()


class Watcher(ObjectiveCallback):
    """Further out: sees the step after the inner callback called the network."""

    def objective(self, step):
        losses = step.loss()
        self.inputs, self.features, self.logits = step.inputs[0].clone(), step.features.clone(), step.logits.detach()
        return losses


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 3))


class Module(LightningModule):
    def __init__(self):
        super().__init__()
        self.model, self.criterion = network(), nn.CrossEntropyLoss()

    def training_step(self, batch, batch_idx):
        return self.criterion(self.model(batch["image"]), batch["target"])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(LightningDataModule):
    def __init__(self, **columns):
        super().__init__()
        x = torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
        self.batch = {"image": x, "target": torch.arange(4) % 3, "index": torch.tensor([2, 0, 3, 1]), **columns}

    def train_dataloader(self):
        return DataLoader([self.batch], batch_size=None)


@pytest.fixture
def looks(trainer):
    def run(look, *callbacks, columns=None, **options):
        callback = Looks(**options)
        callback.look = look
        trainer(callback, *callbacks).fit(Module(), datamodule=Data(**(columns or {})))
        return callback

    return run


def test_views_of_the_batch_are_used(looks):
    views = torch.arange(4 * 2 * 5.0).reshape(4, 2, 5)
    callback = looks(lambda step: (second_view(callback_of(step), step, None), step.index), columns={"views": views})
    view, _ = callback.saw
    assert torch.equal(view, views[:, 1])


def test_a_transform_is_used_before_them(looks):
    columns = {"views": torch.zeros(4, 2, 5)}
    callback = looks(lambda step: second_view(callback_of(step), step, nn.Softplus()) > 0, columns=columns)
    assert callback.saw.all()


def test_without_either_both_remedies_are_named(looks):
    with pytest.raises(UserError, match=r"Looks needs a second view .*core.MultiView.* or pass a module as strong"):
        looks(lambda step: second_view(callback_of(step), step, None))


def test_what_others_captured_stays(looks):
    watcher = Watcher(features="model.1")
    looks(lambda step: network_logits(callback_of(step), step, torch.zeros(2, 5)), watcher)
    torch.testing.assert_close(network()(watcher.inputs), watcher.logits)
    torch.testing.assert_close(network()[2](watcher.features), watcher.logits)


def test_the_network_answers_as_the_module_does(looks):
    callback = looks(lambda step: network_logits(callback_of(step), step, torch.ones(2, 5)))
    torch.testing.assert_close(callback.saw, network()(torch.ones(2, 5)))


def test_a_network_that_is_none_is_named(looks):
    with pytest.raises(UserError, match="has no network 'net' for Looks to call"):
        looks(lambda step: network_logits(callback_of(step), step, torch.ones(2, 5)), network="net")


def test_a_network_that_returns_something_else_is_named(looks):
    looks_at = Looks(network="model.0")
    with pytest.raises(UserError, match=r"the network 'model.0' returned \(2, 8\) where .* shape \(2, 3\)"):
        looks(lambda step: network_logits(looks_at, step, torch.ones(2, 5)))


def test_features_are_those_of_the_layer_and_the_step_keeps_its_own(looks):
    watcher = Watcher(features="model.1")
    callback = looks(
        lambda step: network_features(callback_of(step), step, torch.ones(2, 5)), watcher, features="model.1"
    )
    torch.testing.assert_close(callback.saw, network()[:2](torch.ones(2, 5)))
    torch.testing.assert_close(network()[2](watcher.features), watcher.logits)


def test_a_layer_that_the_network_does_not_pass_is_named(looks):
    looks_at = Looks(network="model.0", features="model.1")
    with pytest.raises(UserError, match="'model.0' does not pass the layer features='model.1' that Looks needs"):
        looks(lambda step: network_features(looks_at, step, torch.ones(2, 5)))


def callback_of(step):
    return next(c for c in step.module.trainer.callbacks if isinstance(c, Looks))

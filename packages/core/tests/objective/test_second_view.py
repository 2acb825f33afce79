import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from torch import nn
from torch.utils.data import DataLoader

from medbolt.core import ImageDataModule, ImageDataset, MultiView, ObjectiveCallback, Subset, UserError
from medbolt.core.objective.second_view import ask_for_second_view, network_features, network_logits, second_view


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
    with pytest.raises(
        UserError, match=r"Looks needs a second view .*pass a module as strong .*, or yield dict batches with views"
    ):
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


class Asks(ObjectiveCallback):
    """Needs a second view, in which colours are others."""

    def __init__(self, strong=None, fails=False):
        super().__init__()
        self.strong, self.fails = strong, fails

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            ask_for_second_view(self, trainer, self.strong)

    def objective(self, step):
        self.first, self.second = step.inputs[0], second_view(self, step, self.strong)
        if self.fails:
            raise RuntimeError("as it happens")
        return step.loss()


class Noise(ImageDataModule):
    def load(self, split):
        images = torch.randint(0, 256, (8, 3, 6, 6), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return ImageDataset(images, torch.arange(8) % 3, [f"{split}{i}" for i in range(8)])

    class_names = ["a", "b", "c"]


def flat_module():
    module = Module()
    module.model = nn.Sequential(nn.Flatten(), nn.Linear(108, 3))
    return module


@pytest.mark.parametrize("wrap", [lambda data: data, lambda data: Subset(data, fraction=1.0)], ids=["plain", "wrapped"])
def test_a_data_module_makes_the_second_view_for_the_fit_only(trainer, wrap):
    data, callback = wrap(Noise(batch_size=4, image_size=None)), Asks()
    own = data.train_transform
    run = trainer(callback)
    run.fit(flat_module(), datamodule=data)
    assert callback.first.shape == callback.second.shape == (4, 3, 6, 6)
    assert not torch.equal(callback.first, callback.second)
    assert data.train_transform is own
    with pytest.raises(RuntimeError, match="as it happens"):
        trainer(Asks(fails=True)).fit(flat_module(), datamodule=data)
    assert data.train_transform is own


def test_views_that_are_made_already_and_a_strong_view_of_the_callback_stay(trainer):
    data = Noise(batch_size=4, image_size=None)
    trainer(callback := Asks(strong=nn.Softplus())).fit(flat_module(), datamodule=data)
    assert torch.equal(callback.second, nn.functional.softplus(callback.first))
    given = MultiView([data.eval_transform, data.eval_transform, data.train_transform])
    data.train_transform = given
    trainer(callback := Asks()).fit(flat_module(), datamodule=data)
    assert torch.equal(callback.first, callback.second)
    assert data.train_transform is given

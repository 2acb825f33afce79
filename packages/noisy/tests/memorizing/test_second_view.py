import pytest
import torch
from torch import nn

from medbolt.core import ObjectiveCallback, UserError
from medbolt.core.objective.second_view import network_logits, second_view


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


@pytest.fixture
def looks(linear, module, random_data, fit):
    def run(look, *callbacks, columns=None, **options):
        callback = Looks(**options)
        callback.look = look
        fit(module(linear()), random_data(4, **(columns or {})), callback, *callbacks)
        return callback

    return run


def test_views_of_the_batch_are_used(looks):
    views = torch.arange(4 * 2 * 5.0).reshape(4, 2, 5)
    callback = looks(lambda step: (second_view(callback_of(step), step, None), step.index), columns={"views": views})
    view, index = callback.saw
    assert torch.equal(view, views[index, 1])


def test_a_transform_is_used_before_them(looks):
    columns = {"views": torch.zeros(4, 2, 5)}
    callback = looks(lambda step: second_view(callback_of(step), step, nn.Softplus()) > 0, columns=columns)
    assert callback.saw.all()


def test_without_either_both_remedies_are_named(looks):
    with pytest.raises(UserError, match=r"Looks needs a second view .*core.MultiView.* or pass a module as strong"):
        looks(lambda step: second_view(callback_of(step), step, None))


def test_what_others_captured_stays(looks, linear):
    watcher = Watcher(features="model.1")
    looks(lambda step: network_logits(callback_of(step), step, torch.zeros(2, 5)), watcher)
    torch.testing.assert_close(linear()(watcher.inputs), watcher.logits)
    torch.testing.assert_close(linear()[2](watcher.features), watcher.logits)


def test_the_network_answers_as_the_module_does(looks, linear):
    callback = looks(lambda step: network_logits(callback_of(step), step, torch.ones(2, 5)))
    torch.testing.assert_close(callback.saw, linear()(torch.ones(2, 5)))


def test_a_network_that_is_none_is_named(looks):
    with pytest.raises(UserError, match="has no network 'net' for Looks to call"):
        looks(lambda step: network_logits(callback_of(step), step, torch.ones(2, 5)), network="net")


def test_a_network_that_returns_something_else_is_named(looks):
    looks_at = Looks(network="model.0")
    with pytest.raises(UserError, match=r"the network 'model.0' returned \(2, 8\) where .* shape \(2, 3\)"):
        looks(lambda step: network_logits(looks_at, step, torch.ones(2, 5)))


def callback_of(step):
    return next(c for c in step.module.trainer.callbacks if isinstance(c, Looks))

import pytest
import torch

from medbolt.core import ObjectiveCallback, UserError


class Looks(ObjectiveCallback):
    def objective(self, step):
        self.saw = self.look(step)
        return step.loss()


def test_features_of_a_named_layer(classifier, data, fitted):
    callback = Looks(features="model.1")
    callback.look = lambda step: (step.features, step.logits)
    module = fitted(classifier, data(), callback, max_steps=1, limit_val_batches=0)
    features, logits = callback.saw
    assert features.shape == (4, 8)
    assert features.grad_fn is not None
    torch.testing.assert_close(torch.linalg.matrix_rank(logits.detach()), torch.tensor(3))
    assert not module.model[1]._forward_hooks


def test_features_of_a_network_that_was_compiled_and_called_before(classifier, data, fitted):
    class Compiled(classifier):
        def __init__(self):
            super().__init__()
            self.model = torch.compile(self.model, backend="eager")
            self.model(torch.rand(4, 4))

    callback = Looks(features="model.1")
    callback.look = lambda step: step.features
    fitted(Compiled, data(), callback, max_steps=1, limit_val_batches=0)
    assert callback.saw.shape == (4, 8)


def test_inputs_of_the_module_itself(classifier, data, fitted):
    class Forward(classifier):
        def forward(self, x):
            return self.model(x)

        def training_step(self, batch, batch_idx):
            return self.criterion(self(batch[0]), batch[1])

    callback = Looks(network="self")
    callback.look = lambda step: (step.inputs[0], step.batch[0])
    fitted(Forward, data(), callback)
    assert torch.equal(*callback.saw)


def test_nothing_is_kept_after_the_batch(classifier, data, fitted):
    callback = Looks()
    callback.look = lambda step: step.inputs
    fitted(classifier, data(), callback)
    assert callback.capture.inputs is None


def test_a_network_that_is_frozen_in_eval_mode_is_seen(classifier, data, fitted):
    class Frozen(classifier):
        def on_train_epoch_start(self):
            self.model.eval()

    callback = Looks()
    callback.look = lambda step: step.inputs[0].shape
    fitted(Frozen, data(), callback)
    assert callback.saw == (4, 4)


def test_a_network_that_was_not_called_is_named(classifier, data, fitted):
    callback = Looks(network="net")
    callback.look = lambda step: step.inputs
    with pytest.raises(UserError, match="the network attribute 'net' of Classifier was not called"):
        fitted(classifier, data(), callback)


def test_a_missing_layer_is_refused_with_what_there_is(classifier, data, fitted):
    with pytest.raises(UserError, match="Classifier has no layer features='model.head'; it has 'model'"):
        fitted(classifier, data(), Looks(features="model.head"))


def test_features_without_a_named_layer_say_how_to_get_them(classifier, data, fitted):
    callback = Looks()
    callback.look = lambda step: step.features
    with pytest.raises(UserError, match="name a layer that training_step calls"):
        fitted(classifier, data(), callback)

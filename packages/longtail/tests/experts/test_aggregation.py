import pytest
import torch
from lightning.pytorch import Callback
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import trainer

from medbolt.core import RandomState, UserError
from medbolt.longtail import ExpertAggregation, ExpertsClassifier, SkilledExperts
from medbolt.longtail.experts.stability import stable_weights


class Noise(nn.Module):
    """Views under which predictions are uncertain."""

    def forward(self, image):
        return image + 0.5 * torch.randn(image.shape[-2:])


class Seen(Callback):
    """Keeps the weights that each batch was predicted with, and whether gradients were on."""

    def __init__(self, fail=False):
        self.weights, self.fail = [], fail

    def keep(self, module):
        self.weights.append(module.model.weights.tolist())
        if self.fail:
            raise RuntimeError("out of luck")

    def on_test_batch_end(self, trainer, pl_module, *arguments):
        self.keep(pl_module)

    def on_predict_batch_end(self, trainer, pl_module, *arguments):
        self.keep(pl_module)

    def on_validation_batch_end(self, trainer, pl_module, *arguments):
        self.keep(pl_module)


@pytest.fixture
def module(kept, small):
    return kept(network=ExpertsClassifier(small(), 3, ["body"]))


def trained(module, add, overlapping):
    run = trainer(RandomState(), add(), SkilledExperts(), epochs=10, limit_val_batches=0)
    run.fit(module, datamodule=overlapping())
    return module


def test_test_data_with_a_tail_at_either_end_are_predicted_better(task, add, overlapping):
    module, weights = trained(task(), add, overlapping), []
    for test, gain in (((120, 12, 3), 0.1), ((3, 12, 120), 0.03)):
        accuracy = []
        for callbacks in ((), (ExpertAggregation(views=Noise()),)):
            (found,) = trainer(*callbacks).test(module, datamodule=overlapping(test=test), verbose=False)
            accuracy.append(found["test/accuracy"])
        assert accuracy[1] > accuracy[0] + gain
        weights.append(callbacks[0].weights[0])
    assert weights[0][0] > 0.5 > weights[0][2]  # the expert of the head, then that of the tail
    assert weights[1][2] > 0.5 > weights[1][0]


@pytest.mark.parametrize("stage", ["test", "predict", "validate"])
def test_all_evaluations_use_the_weights_and_give_them_back(module, overlapping, stage):
    callback, seen = ExpertAggregation(steps=50, lr=20.0), Seen()
    module.model.weights.copy_(torch.tensor([0.2, 0.3, 0.5]))
    getattr(trainer(callback, seen), stage)(module, datamodule=overlapping())
    assert len(seen.weights) == 6
    assert all(weights == pytest.approx(callback.weights[0].tolist(), abs=1e-6) for weights in seen.weights)
    assert callback.weights[0].std() > 1e-3
    assert module.model.weights.tolist() == pytest.approx([0.2, 0.3, 0.5])
    assert module.model.training
    assert all(p.grad is None for p in module.parameters())


def test_weights_are_those_of_two_views_of_each_image(module, overlapping):
    class Shift(nn.Module):
        def forward(self, image):
            drawn.append(image)
            return image + torch.rand(())

    drawn, given = [], []
    callback = ExpertAggregation(steps=7, lr=30.0, views=Shift(), seed=5)
    module.model.experts.register_forward_hook(lambda _, inputs, output: given.append(output))
    run = trainer(callback, limit_test_batches=1)
    run.test(module, datamodule=overlapping(16), verbose=False)
    (batch, *_) = overlapping(16).test_dataloader()
    assert torch.equal(torch.stack(drawn[:16]), batch["image"])
    assert len(drawn) == 32
    first, second, _ = (logits.transpose(0, 1).double().clone() for logits in given)
    assert not torch.equal(first, second)
    torch.testing.assert_close(callback.weights[0], stable_weights(first, second, 7, 30.0, 0.05))


def test_views_belong_to_samples_and_not_to_batches(module, overlapping):
    found = []
    for batch_size, seed in ((32, 0), (7, 0), (32, 1)):
        callback = ExpertAggregation(steps=20, lr=30.0, seed=seed)
        trainer(callback).test(module, datamodule=overlapping(batch_size), verbose=False)
        found.append(callback.weights[0])
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-6)
    assert (found[0] - found[2]).abs().max() > 1e-4


def test_each_data_loader_has_its_own_weights_and_batches_need_no_index(module, overlapping):
    class Tuples(type(module)):
        def test_step(self, batch, batch_idx, dataloader_idx=0):
            return self.model(batch[0])

    other = Tuples(network=module.model)
    images = torch.randn(20, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    loaders = [DataLoader(TensorDataset(scale * images, torch.zeros(20)), batch_size=10) for scale in (1, 5)]
    callback, seen = ExpertAggregation(steps=20, lr=30.0), Seen()
    trainer(callback, seen).test(other, loaders, verbose=False)
    assert len(callback.weights) == 2
    assert (callback.weights[0] - callback.weights[1]).abs().max() > 1e-3
    expected = [callback.weights[i].tolist() for i in (0, 0, 1, 1)]
    assert [pytest.approx(weights, abs=1e-6) for weights in seen.weights] == expected


def test_fit_is_left_alone(task, add, overlapping):
    callback, seen, module = ExpertAggregation(), Seen(), task()
    trainer(add(), callback, seen).fit(module, datamodule=overlapping())
    assert all(weights == pytest.approx([1 / 3] * 3) for weights in seen.weights)
    assert not callback.weights


def test_after_a_failure_the_weights_are_back(module, overlapping):
    with pytest.raises(RuntimeError, match="out of luck"):
        trainer(ExpertAggregation(steps=50, lr=20.0), Seen(fail=True)).test(module, datamodule=overlapping())
    assert module.model.weights.tolist() == pytest.approx([1 / 3] * 3)


def test_half_precision_and_a_single_image(module, overlapping):
    callback = ExpertAggregation(steps=5)
    trainer(callback, precision="bf16-mixed").test(module, datamodule=overlapping(), verbose=False)
    trainer(callback).test(module, datamodule=overlapping(test=(1, 0, 0)), verbose=False)
    assert callback.weights[0].isfinite().all()


def test_mistakes_are_named(kept, overlapping):
    with pytest.raises(UserError, match=r"ExpertAggregation needs a network of experts.*put AddExperts\(3\)"):
        trainer(ExpertAggregation()).test(kept(), datamodule=overlapping())
    for options in ({"steps": -1}, {"lr": 0.0}, {"min_weight": 1.0}):
        with pytest.raises(ValueError, match="steps must not be negative"):
            ExpertAggregation(**options)

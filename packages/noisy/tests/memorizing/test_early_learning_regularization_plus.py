from copy import deepcopy

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from torch import nn
from torch.nn.functional import cross_entropy

from medbolt.core import ObjectiveCallback, RandomState
from medbolt.noisy import EarlyLearningRegularizationPlus
from medbolt.noisy.memorizing.early_learning_regularization_plus import ramp_up


class Keeps(Callback):
    """Keeps copies of both networks as each batch begins with them."""

    def __init__(self, method):
        self.method, self.networks = method, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.networks.append((clean_copy(pl_module.model), clean_copy(self.method.peer)))


def clean_copy(network):
    saved = network._forward_pre_hooks.copy()
    network._forward_pre_hooks.clear()
    copied = deepcopy(network)
    network._forward_pre_hooks.update(saved)
    return copied


@pytest.fixture
def fixed_mix(monkeypatch):
    """Mix each sample with the one before it, three to seven."""
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.full(shape, 0.3))
    monkeypatch.setattr(torch, "randperm", lambda size, **options: torch.arange(size).roll(1))


def test_equals_the_formula_sample_by_sample(linear, module, random_data, fit, fixed_mix):
    data = random_data(4)
    data.shuffle = False
    callback = EarlyLearningRegularizationPlus(weight=2.0, momentum=0.6, average_decay=0.5, average_ramp_steps=0)
    trained, keeps = module(linear(), lr=0.5), Keeps(callback)
    fit(trained, data, callback, keeps, epochs=3)
    x, y = data.columns["image"], data.columns["target"]
    averages = [{n: v.clone() for n, v in net.state_dict().items()} for net in keeps.networks[0]]
    targets = torch.zeros(2, 4, 3)
    for number, (networks, loss) in enumerate(zip(keeps.networks, trained.losses, strict=True)):
        losses = torch.zeros(4)
        for average, network in zip(averages, networks, strict=True):
            for name, value in network.state_dict().items():
                average[name] = value if number == 0 else 0.5 * average[name] + 0.5 * value
        for k in (0, 1):
            teacher = linear()
            teacher.load_state_dict(averages[1 - k])
            for i in range(4):
                p = teacher(x[i]).softmax(0).clamp(1e-4, 1 - 1e-4)
                targets[k, i] = 0.6 * targets[k, i] + 0.4 * (p / p.sum()).detach()
            for i in range(4):
                z = networks[k](0.3 * x[i] + 0.7 * x[i - 1])
                q = 0.3 * targets[k, i] + 0.7 * targets[k, i - 1]
                losses[i] += 0.3 * cross_entropy(z, y[i]) + 0.7 * cross_entropy(z, y[i - 1])
                losses[i] += 2 * torch.log(1 - (q * z.softmax(0).clamp(1e-4, 1 - 1e-4)).sum())
        torch.testing.assert_close(loss, losses.mean().detach())
    torch.testing.assert_close(callback.memory["target"], targets[0])
    torch.testing.assert_close(callback.memory["peer_target"], targets[1])


def test_both_networks_learn_and_the_averages_only_follow(linear, module, random_data, fit):
    callback = EarlyLearningRegularizationPlus()
    trained, keeps = module(linear()), Keeps(callback)
    fit(trained, random_data(), callback, keeps, epochs=2)
    first, last = keeps.networks[0], keeps.networks[-1]
    for k in (0, 1):
        assert not torch.equal(first[k][0].weight, last[k][0].weight)
        assert not any(p.requires_grad for p in callback.averages[k].parameters())
    assert not torch.equal(first[0][0].weight, first[1][0].weight)


def test_an_average_takes_in_one_optimizer_step_once(linear, module, random_data, fit):
    callback = EarlyLearningRegularizationPlus(average_decay=0.5, average_ramp_steps=0)
    keeps = Keeps(callback)
    fit(module(linear(), lr=0.5), random_data(8, 2), callback, keeps, epochs=2, accumulate_grad_batches=2)
    weights = [networks[0][0].weight.detach() for networks in keeps.networks]
    expected = weights[0]
    for weight in weights[2::2]:  # of every second batch: what is between is of the same step
        expected = 0.5 * expected + 0.5 * weight
    torch.testing.assert_close(callback.averages[0][0].weight, expected)


def test_ramps(linear, module, random_data, fit):
    assert [ramp_up(step, 4) for step in (0, 4, 9)] == [pytest.approx(0.00674, rel=1e-3), 1, 1]
    late, now = EarlyLearningRegularizationPlus(ramp_steps=10**9), EarlyLearningRegularizationPlus(weight=3 * 0.0067379)
    losses = []
    for callback in (late, now):
        trained = module(linear())
        fit(trained, random_data(), callback)
        losses.append(torch.stack(trained.losses))
    torch.testing.assert_close(losses[0], losses[1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("step", [1, 2])
def test_resumed_is_uninterrupted_also_from_the_first_step(step, linear, module, random_data, fit, tmp_path):
    def run(epochs, path=None):
        callback = EarlyLearningRegularizationPlus(average_decay=0.9, average_ramp_steps=0)
        trained = module(linear(), lr=0.5)
        data = random_data(4)
        data.shuffle = False
        trainer = Trainer(
            accelerator="cpu",
            max_epochs=epochs,
            callbacks=[RandomState(3), callback],
            default_root_dir=tmp_path,
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(trained, datamodule=data, ckpt_path=path, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        networks = [trained.model, callback.peer, *callback.averages]
        return [value for network in networks for value in network.state_dict().values()]

    whole = run(4)
    run(step)
    torch.testing.assert_close(run(4, tmp_path / f"{step}.ckpt"), whole, rtol=0, atol=0)


def test_tells_inner_objectives_whose_logits_they_get(linear, module, random_data, fit):
    class Listens(ObjectiveCallback):
        def objective(self, step):
            self.heard.append(step.is_own)
            return step.loss()

    listens = Listens()
    listens.heard = []
    fit(module(linear()), random_data(4), listens, EarlyLearningRegularizationPlus())
    assert listens.heard == [True, True, False, False]  # two losses of each network's mixtures


def test_averages_are_saved_and_the_module_is_left_as_it_was(linear, module, random_data, fit, tmp_path):
    callback, trained = EarlyLearningRegularizationPlus(), module(linear())
    names = set(trained.state_dict())
    trainer = fit(trained, random_data(), callback, default_root_dir=tmp_path)
    trainer.save_checkpoint(tmp_path / "saved.ckpt")
    saved = torch.load(tmp_path / "saved.ckpt", weights_only=True)
    assert set(saved["state_dict"]) == names == set(trained.state_dict())
    (state,) = [s for s in saved["callbacks"].values() if "averages" in s]
    assert torch.equal(state["averages"][1]["0.weight"], callback.averages[1][0].weight)
    assert not trained.model._forward_pre_hooks


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(EarlyLearningRegularizationPlus(), epochs=30) > cross_entropy_accuracy + 0.2


def test_works_on_a_foreign_module_with_a_functional_loss(linear, module, functional_module, random_data, fit):
    first, second = functional_module(linear()), module(linear())
    fit(first, random_data(), EarlyLearningRegularizationPlus(criterion="functional"), epochs=2)
    fit(second, random_data(), EarlyLearningRegularizationPlus(), epochs=2)
    torch.testing.assert_close(first.losses, second.losses)


def test_gradient_is_finite_under_bfloat16_a_batch_of_one_and_one_logit(linear, module, random_data, fit):
    class Binary(module):
        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch["image"]).flatten(), batch["target"].float())

    for trained, options, data in (
        (module(linear()), {"precision": "bf16-mixed"}, random_data()),
        (module(linear()), {"precision": "bf16-true"}, random_data(image=torch.zeros(10, 5, dtype=torch.bfloat16))),
        (module(linear()), {}, random_data(1)),
        (Binary(linear(1), nn.BCEWithLogitsLoss()), {}, random_data(target=torch.arange(10) % 2, num_classes=2)),
    ):
        fit(trained, data, EarlyLearningRegularizationPlus(), epochs=2, **options)
        assert all(p.isfinite().all() for p in trained.parameters())


@pytest.mark.parametrize("wrong", [{"weight": -1}, {"alpha": 0}, {"average_decay": 1}, {"momentum": 1}])
def test_arguments_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        EarlyLearningRegularizationPlus(**wrong)


def test_two_optimizers_make_no_step_count_twice(linear, module, random_data, fit):
    class Manual(module):
        def __init__(self, network):
            super().__init__(network)
            self.automatic_optimization = False

        def training_step(self, batch, batch_idx):
            loss = super().training_step(batch, batch_idx)
            self.zero_grad()
            self.manual_backward(loss)
            for optimizer in self.optimizers():
                optimizer.step()

        def configure_optimizers(self):
            first, *others = self.parameters()
            return torch.optim.SGD([first], self.lr), torch.optim.SGD(others, self.lr)

    found = []
    for kind in (Manual, module):
        torch.manual_seed(0)
        trained, callback = kind(linear()), EarlyLearningRegularizationPlus(average_ramp_steps=8, ramp_steps=8)
        fit(trained, random_data(), callback, epochs=3)
        found.append([*trained.parameters(), *callback.averages[0].parameters()])
    torch.testing.assert_close(*found)

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint, StochasticWeightAveraging
from lightning.pytorch.plugins import MixedPrecision
from lightning.pytorch.strategies import FSDPStrategy
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import MixedInputs, ObjectiveCallback, RandomState, UserError
from medbolt.longtail import DeferredReweighting, Remix, SharpnessAwareMinimization

A = torch.tensor([[3.0, 0.5], [0.5, 1.0]])


class Quadratic(LightningModule):
    """L(w) = w'Aw / 2 in whatever batch."""

    def __init__(self, make=lambda p: torch.optim.SGD(p, 0.1)):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, -2.0]))
        self.make = make

    def training_step(self, batch, batch_idx):
        return self.w @ A @ self.w / 2

    def configure_optimizers(self):
        return self.make(self.parameters())


class Plain(LightningModule):
    """A network without randomness or statistics, whose batches may be put together."""

    def __init__(self, optimizer=None):
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))
        self.criterion = nn.CrossEntropyLoss()
        self.optimizer = optimizer or (lambda p: torch.optim.SGD(p, 0.3, momentum=0.9))
        self.calls = 0

    def training_step(self, batch, batch_idx):
        self.calls += 1
        x, y = batch
        return {"loss": self.criterion(self.model(x), y)}

    def configure_optimizers(self):
        return self.optimizer(self.parameters())


class Watched(ToyClassifier):
    """With batch norm and dropout; logs, and counts in a metric."""

    def __init__(self):
        super().__init__()
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=3)
        self.both = torchmetrics.MetricCollection([torchmetrics.Recall("multiclass", num_classes=3)])

    def training_step(self, batch, batch_idx):
        logits = self.model(batch["image"])
        loss = self.criterion(logits, batch["target"])
        self.accuracy.update(logits, batch["target"])
        self.both(logits, batch["target"])
        self.log("train/loss", loss, on_step=True, on_epoch=True)
        self.log_dict({"train/accuracy": self.accuracy}, on_epoch=True)
        self.log_dict(self.both, on_epoch=True)
        return loss


class Values(Callback):
    """What was logged at each step."""

    def __init__(self):
        self.values = []

    def on_train_batch_end(self, trainer, pl_module, *arguments):
        self.values.append({name: float(value) for name, value in trainer.callback_metrics.items()})


def samples(size=21):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(size, 4, generator=generator), torch.arange(size) % 3


def loader(size=21, batch_size=3):
    return DataLoader(TensorDataset(*samples(size)), batch_size=batch_size)


def by_hand(module, batches, rho, clip=None):
    """The algorithm as the paper states it, one step for each list of batches."""
    optimizer = module.configure_optimizers()
    parameters = list(module.parameters())

    def gradient(window):
        losses = [F.cross_entropy(module.model(x), y) for x, y in window]
        return torch.autograd.grad(sum(losses) / len(batches[0]), parameters)

    for window in batches:
        g = gradient(window)
        norm = sum(float(value.square().sum()) for value in g) ** 0.5
        before = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, value in zip(parameters, g, strict=True):
                p += rho * value / norm
        g = gradient(window)
        with torch.no_grad():
            for p, value in zip(parameters, before, strict=True):
                p.copy_(value)
        for p, value in zip(parameters, g, strict=True):
            p.grad = value
        if clip is not None:
            nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()
    return weights(module)


def test_a_quadratic_against_the_closed_form():
    module = Quadratic()
    w = module.w.detach().clone()
    trainer(SharpnessAwareMinimization(0.3)).fit(module, DataLoader(torch.zeros(5)))
    for _ in range(5):
        g = A @ w
        w = w - 0.1 * A @ (w + 0.3 * g / g.norm())
    torch.testing.assert_close(module.w.detach(), w)


@pytest.mark.parametrize("accumulate", [1, 3, 4])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_equals_the_algorithm_by_hand_with_accumulation_and_clipping(accumulate, clip):
    module, plain = Plain(), Plain()
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": clip}
    trainer(SharpnessAwareMinimization(0.5), **options).fit(module, loader())
    batches = list(loader())
    windows = [batches[i : i + accumulate] for i in range(0, len(batches), accumulate)]  # the last may be shorter
    torch.testing.assert_close(weights(module), by_hand(plain, windows, 0.5, clip), rtol=1e-5, atol=1e-6)
    assert module.calls == 2 * len(batches)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"accumulate_grad_batches": 4},
        {"precision": "bf16-mixed"},
        {"gradient_clip_val": 0.01, "gradient_clip_algorithm": "value"},
    ],
    ids=str,
)
def test_with_radius_zero_it_is_plain_training_bit_for_bit_whatever_is_logged(options):
    """Dropout, statistics of batch norm, momentum, logs and metrics included."""
    results = []
    for callbacks in ([SharpnessAwareMinimization(0.0)], []):
        module, values = Watched(), Values()
        trainer(*callbacks, RandomState(3), values, epochs=3, **options).fit(module, datamodule=ToyImages())
        results.append((weights(module), values.values, len(module.seen)))
    assert torch.equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]
    assert len(results[0][1]) == 18
    assert {"train/loss_step", "train/loss_epoch", "train/accuracy_epoch"} <= results[0][1][-1].keys()


def test_it_changes_training_and_statistics_move_once_a_batch():
    modules = []
    for rho in (0.0, 0.5):
        module = Watched()
        trainer(SharpnessAwareMinimization(rho), RandomState(3), epochs=2).fit(module, datamodule=ToyImages())
        modules.append(module)
    assert not torch.equal(weights(modules[0]), weights(modules[1]))
    assert all(int(module.model[1].num_batches_tracked) == 12 for module in modules)


def test_the_first_pass_is_what_is_logged_and_counted():
    class Record(Callback):
        counted = []

        def on_train_batch_end(self, trainer, pl_module, outputs, *arguments):
            assert float(trainer.callback_metrics["train/loss_step"]) == float(outputs["loss"])
            self.counted.append(int(sum(pl_module.accuracy.tp + pl_module.accuracy.fn)))

    record = Record()
    trainer(SharpnessAwareMinimization(0.5), record).fit(Watched(), datamodule=ToyImages())
    assert record.counted == [4, 8, 12, 16, 20, 24]


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_half_precision_is_finite(precision):
    class Half(Watched):
        def training_step(self, batch, batch_idx):
            batch = batch | {"image": batch["image"].to(self.model[0].weight.dtype)}
            return super().training_step(batch, batch_idx)

    module = Half()
    trainer(SharpnessAwareMinimization(), precision=precision, limit_val_batches=0).fit(module, datamodule=ToyImages())
    assert weights(module).isfinite().all()
    assert not torch.equal(weights(module), weights(Half().to(module.dtype)))


def scaling(init_scale):
    scaler = torch.amp.GradScaler("cpu", init_scale=init_scale, growth_interval=1000)
    return MixedPrecision("16-mixed", "cpu", scaler), scaler


def test_a_gradient_scaler_changes_nothing_but_rounding():
    module, exact = Plain(), Plain()
    plugin, _ = scaling(2.0**10)
    trainer(SharpnessAwareMinimization(0.5), plugins=[plugin], accumulate_grad_batches=2).fit(module, loader())
    trainer(SharpnessAwareMinimization(0.5), accumulate_grad_batches=2).fit(exact, loader())
    torch.testing.assert_close(weights(module), weights(exact), rtol=0.02, atol=0.01)


def test_where_the_first_pass_overflows_the_step_is_skipped():
    module = Plain()
    plugin, scaler = scaling(2.0**30)
    before = weights(module)
    trainer(SharpnessAwareMinimization(0.5), plugins=[plugin], limit_train_batches=2).fit(module, loader())
    assert torch.equal(weights(module), before)
    assert scaler.get_scale() == 2.0**28


def test_where_the_second_pass_overflows_the_first_gradient_is_used():
    class Overflows(Plain):
        def training_step(self, batch, batch_idx):
            output = super().training_step(batch, batch_idx)
            return {"loss": output["loss"] * (torch.inf if self.calls % 2 == 0 else 1.0)}

    module, plain = Overflows(), Plain()
    for m, callbacks in ((module, [SharpnessAwareMinimization(0.5)]), (plain, [])):
        trainer(*callbacks, plugins=[scaling(2.0**10)[0]]).fit(m, loader())
    assert torch.equal(weights(module), weights(plain))


def test_a_gradient_of_zero_or_nan_is_left_as_it_is():
    class Constant(Quadratic):
        factor = 0.0

        def training_step(self, batch, batch_idx):
            return super().training_step(batch, batch_idx) * self.factor

    for factor in (0.0, torch.nan):
        module = Constant()
        module.factor = factor
        trainer(SharpnessAwareMinimization()).fit(module, DataLoader(torch.zeros(2)))
        assert module.w.isfinite().all() == (factor == 0.0)


def test_a_step_that_is_skipped():
    class Skips(Plain):
        def training_step(self, batch, batch_idx):
            return None if batch_idx == 1 else super().training_step(batch, batch_idx)

    module = Skips()
    trainer(SharpnessAwareMinimization()).fit(module, loader())
    assert module.calls == 12


def test_along_a_valley_of_minima_it_goes_to_the_flattest():
    """(uv - 1)^2 is 0 wherever uv = 1, and curved there by 2 (u^2 + v^2), least for u = v = 1."""

    class Valley(LightningModule):
        def __init__(self):
            super().__init__()
            self.w = nn.Parameter(torch.tensor([3.0, 0.2]))

        def training_step(self, batch, batch_idx):
            return (self.w.prod() - 1) ** 2

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), 0.02)

    curvature = []
    for callbacks in ([], [SharpnessAwareMinimization(0.2)]):
        module = Valley()
        trainer(*callbacks).fit(module, DataLoader(torch.zeros(500)))
        w = module.w.detach()
        assert w.prod() == pytest.approx(1, abs=0.1)
        curvature.append(float(w.square().sum()))
    assert curvature[0] > 8
    assert curvature[1] < 3


def test_frozen_parts_and_parameters_outside_of_the_optimizer_stay():
    module = Plain(lambda p: torch.optim.SGD(list(p)[1:3], 0.3))
    module.model[0].bias.requires_grad_(False)
    before = deepcopy(module.state_dict())
    trainer(SharpnessAwareMinimization(0.5)).fit(module, loader())
    moved = {name for name, value in module.state_dict().items() if not torch.equal(value, before[name])}
    assert moved == {"model.2.weight"}


def test_resumed_is_uninterrupted(tmp_path):
    def fit(folder, path=None):
        module = Watched()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        run = trainer(SharpnessAwareMinimization(0.2), RandomState(1), saving, epochs=3, enable_checkpointing=True)
        run.fit(module, datamodule=ToyImages(), ckpt_path=path)
        return weights(module)

    whole = fit(tmp_path / "whole")
    for step in (8, 12):  # of six batches an epoch
        assert torch.equal(fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt"), whole)


def test_under_an_objective_the_second_pass_has_its_loss():
    module, plain = Plain(), Plain()
    weighted = DeferredReweighting(start=0, weighting="inverse", class_counts=[9, 3, 1])
    trainer(SharpnessAwareMinimization(0.5), weighted).fit(module, loader())
    scale = weighted.weights

    class Weighted(Plain):
        def training_step(self, batch, batch_idx):
            x, y = batch
            return (scale[y] * F.cross_entropy(self.model(x), y, reduction="none")).mean()

    plain = Weighted()
    trainer(SharpnessAwareMinimization(0.5)).fit(plain, loader())
    torch.testing.assert_close(weights(module), weights(plain))


def test_both_passes_mix_alike():
    seen = []

    class See(Plain):
        def training_step(self, batch, batch_idx):
            self.model[0].register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0].detach().clone()))
            return super().training_step(batch, batch_idx)

    mixing = Remix(class_counts=[9, 3, 1])
    assert isinstance(mixing, MixedInputs)
    trainer(mixing, SharpnessAwareMinimization(0.5), limit_train_batches=1).fit(See(), loader())
    assert all(torch.equal(seen[0], other) for other in seen)
    assert len(seen) > 1
    assert not torch.equal(seen[0], next(iter(loader()))[0])


def test_mixing_goes_on_as_without_it():
    """The second pass draws no mixtures, and the generator is put back to where the first one left it."""
    results = []
    for callbacks in ([SharpnessAwareMinimization(0.0)], []):
        module = Plain()
        torch.manual_seed(5)
        trainer(Remix(class_counts=[9, 3, 1]), *callbacks).fit(module, loader())
        results.append(weights(module))
    assert torch.equal(*results)


def test_objectives_with_a_memory_or_with_accumulation_are_refused():
    class Remembers(ObjectiveCallback):
        def setup(self, trainer, pl_module, stage):
            super().setup(trainer, pl_module, stage)
            self.remember(trainer, value=torch.tensor(0.0))

    with pytest.raises(UserError, match="Remembers remembers samples, which the second pass"):
        trainer(SharpnessAwareMinimization(), Remembers()).fit(ToyClassifier(), datamodule=ToyImages())
    run = trainer(SharpnessAwareMinimization(), ObjectiveCallback(), accumulate_grad_batches=2)
    with pytest.raises(UserError, match="ObjectiveCallback knows one batch at a time.* all 2 that were accumulated"):
        run.fit(Plain(), loader())


def test_what_cannot_be_done_is_said():
    class Manual(Plain):
        automatic_optimization = False

    with pytest.raises(UserError, match="Manual optimizes by itself"):
        trainer(SharpnessAwareMinimization()).fit(Manual(), loader())
    fused = Plain(lambda p: torch.optim.Adam(p, fused=True))
    with pytest.raises(UserError, match="fused=False"):
        trainer(SharpnessAwareMinimization(), plugins=[scaling(1.0)[0]]).fit(fused, loader())

    class Sharded:
        strategy, precision_plugin, optimizers, callbacks = FSDPStrategy(), None, [], []

    with pytest.raises(UserError, match="which FSDPStrategy does not keep"):
        SharpnessAwareMinimization().on_train_start(Sharded(), Plain())
    with pytest.raises(ValueError, match="rho must not be negative"):
        SharpnessAwareMinimization(-0.1)


def test_a_failure_in_the_second_pass_leaves_weights_and_module_as_they_were():
    class Fails(Plain):
        def training_step(self, batch, batch_idx):
            output = super().training_step(batch, batch_idx)
            if self.calls == 2:
                raise RuntimeError("boom")
            return output

    module = Fails()
    before = weights(module)
    with pytest.raises(RuntimeError, match="boom"):
        trainer(SharpnessAwareMinimization(5.0)).fit(module, loader())
    assert torch.equal(weights(module), before)
    assert not {"training_step", "log", "log_dict"} & vars(module).keys()


def test_it_waits_where_weight_averaging_refills_batch_norm():
    averaging = StochasticWeightAveraging(0.01, swa_epoch_start=1, annealing_epochs=1)
    callbacks = [DeferredReweighting(start=1), SharpnessAwareMinimization(), averaging]
    module = ToyClassifier()
    trainer(*callbacks, epochs=3).fit(module, datamodule=ToyImages())
    assert weights(module).isfinite().all()

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader
from toys import trainer, weights

from medbolt.core import ClassificationTask, MixUp, RandomState, UserError
from medbolt.longtail import (
    CenterLoss,
    DeferredReweighting,
    FeatureLoss,
    LDAMLoss,
    RareSampleGeneration,
    SharpnessAwareMinimization,
)

COUNTS = [200, 20, 4]


def make(**options):
    return RareSampleGeneration(**({"channels": 6, "features": "model.stem", "start": 1, "hidden": 8} | options))


def combined(module, callback, batch, epoch):
    """Return logits and targets of a batch with its generated samples, and the generator's loss, layer by layer."""
    network = module.model
    maps = network.stem(batch["image"])
    made = callback.generator(maps, batch["target"], epoch >= callback.first_epoch)
    if made.maps is None:
        return network.head(network.body(maps)), batch["target"], made.loss
    maps = torch.cat([maps, made.maps])
    return network.head(network.body(maps)), torch.cat([batch["target"], batch["target"][made.rare]]), made.loss


def test_the_loss_is_the_mean_over_real_and_generated_samples_from_the_start_on(kept, colored):
    module, callback = kept(), make()
    trainer(RandomState(2), callback, epochs=2).fit(module, datamodule=colored())
    numbers = set()
    for i, (batch, logits, loss) in enumerate(zip(module.batches, module.logits, module.losses, strict=True)):
        expected, target, penalty = combined(module, callback, batch, epoch=i // 7)
        losses = [z.logsumexp(0) - z[y] for z, y in zip(expected, target, strict=True)]
        assert loss == pytest.approx(float(sum(losses) / len(losses) + penalty), rel=1e-5)
        torch.testing.assert_close(logits, expected[: len(logits)].detach())
        assert len(logits) == len(batch["target"])
        numbers.add((i // 7, len(target) > len(logits)))
    assert numbers == {(0, False), (1, True)}


WEIGHTED = nn.CrossEntropyLoss(torch.tensor([0.2, 1.0, 3.0]))


@pytest.mark.parametrize(
    "criterion", [WEIGHTED, LDAMLoss(scale=2.0, class_counts=COUNTS), nn.CrossEntropyLoss(label_smoothing=0.1)]
)
def test_it_is_the_criterion_s_own_mean_over_all(kept, colored, criterion):
    module, callback = kept(criterion=criterion), make(start=0)
    trainer(callback).fit(module, datamodule=colored())
    for batch, loss in zip(module.batches, module.losses, strict=True):
        logits, target, penalty = combined(module, callback, batch, 0)
        assert loss == pytest.approx(float(criterion(logits, target) + penalty), rel=1e-5)


def test_gradients_are_those_of_the_sum(kept, colored):
    """One step of gradient descent by hand, of the network and of the generator."""
    module, callback = kept(0.1), make(start=0)
    before = deepcopy(module)
    run = trainer(callback, limit_train_batches=1)
    run.fit(module, datamodule=colored())
    with torch.random.fork_rng():
        fresh = make(start=0)
        trainer(fresh, limit_train_batches=0).fit(kept(), datamodule=colored())
    logits, target, penalty = combined(before, fresh, module.batches[0], 0)
    (F.cross_entropy(logits, target) + penalty).backward()
    for part, found in ((before.model, module.model), (fresh.generator, callback.generator)):
        expected = {n: p.detach() - 0.1 * p.grad if p.grad is not None else p for n, p in part.named_parameters()}
        torch.testing.assert_close(dict(found.named_parameters()), expected, rtol=1e-5, atol=1e-7)


def test_training_that_never_generates_is_the_plain_one_bit_for_bit(kept, colored):
    def fit(*callbacks):
        module = kept(0.1)
        trainer(RandomState(1), *callbacks, epochs=2).fit(module, datamodule=colored())
        return weights(module)

    plain = fit()
    for options, warning in (
        ({"frequent": 1.0}, r"frequent=1.0 leaves one kind of class"),
        ({"frequent": []}, r"frequent=\[\] leaves one kind of class"),
        ({"start": 160}, "start=160 of 2 epochs"),
    ):
        with pytest.warns(UserWarning, match=f"RareSampleGeneration never generates: {warning}"):
            assert torch.equal(fit(make(**options)), plain)
    assert not torch.equal(fit(make(start=0)), plain)


def test_resumed_is_uninterrupted_across_the_start(kept, colored, tmp_path):
    def fit(folder, path=None):
        module, callback = kept(0.05), make()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)
        run = trainer(RandomState(7), callback, saving, epochs=3, enable_checkpointing=True)
        run.fit(module, datamodule=colored(), ckpt_path=path)
        return module, callback.generator

    whole, generator = fit(tmp_path / "whole")
    for step in (5, 10, 15):  # of seven batches an epoch: before the start, soon after, in the last epoch
        resumed, again = fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")
        assert torch.equal(weights(resumed), weights(whole))
        assert torch.equal(weights(again), weights(generator))
    saved = torch.load(tmp_path / "whole/step=10.ckpt", weights_only=True)
    assert not any("generator" in name for name in saved["state_dict"])
    kept().load_state_dict(saved["state_dict"])


def test_it_leaves_no_trace(kept, colored):
    module, callback = kept(), make(start=0)
    names = [name for name, _ in module.named_modules()]
    trainer(callback).fit(module, datamodule=colored())
    assert [name for name, _ in module.named_modules()] == names
    assert not module.model._forward_hooks
    assert not module.model.stem._forward_hooks
    assert module.model(torch.zeros(5, 3, 4, 4)).shape == (5, 3)


def test_its_weights_do_not_move_torch_s_generator_and_follow_the_seed(kept, colored):
    def drawn(*callbacks):
        torch.manual_seed(5)
        trainer(*callbacks, limit_train_batches=0).fit(kept(), datamodule=colored())
        return torch.get_rng_state()

    first, again, other = make(start=0), make(start=0), make(start=0, seed=1)
    assert torch.equal(drawn(first), drawn())
    drawn(again, RandomState(3))
    drawn(other)
    assert torch.equal(weights(first.generator), weights(again.generator))
    assert not torch.equal(weights(first.generator), weights(other.generator))


@pytest.mark.parametrize("seed", [0, 1])
def test_it_finds_more_of_the_tail_than_cross_entropy(network, colored, seed):
    def trained(*callbacks):
        task = ClassificationTask(network(seed=seed), 3, optimizer=lambda p: torch.optim.Adam(p, 0.01))
        data = colored(sizes=[200, 12, 12])
        run = trainer(RandomState(seed), *callbacks, epochs=16, limit_val_batches=0)
        run.fit(task, datamodule=data)
        found = run.test(task, datamodule=data, verbose=False)[0]
        return (found["test/recall/less"] + found["test/recall/rare"]) / 2, found["test/balanced_accuracy"]

    plain, found = trained(), trained(make(start=0.5))
    assert found[0] > plain[0] + 0.2
    assert found[1] > plain[1] + 0.1


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {}, {"accumulate_grad_batches": 3}])
@pytest.mark.parametrize("batch_size", [1, 7])
def test_bfloat16_batches_of_one_odd_ones_and_accumulation(kept, colored, options, batch_size):
    module, callback = kept(0.01), make(start=1, centers=1)
    trainer(callback, epochs=2, limit_train_batches=12, **options).fit(module, datamodule=colored(batch_size))
    assert all(p.isfinite().all() for p in (*module.parameters(), *callback.generator.parameters()))


def test_a_class_without_samples_and_soft_targets(kept, colored):
    module = kept(0.01)
    callback = make(start=0, class_counts=[200, 20, 0], strength=2.5)
    trainer(callback).fit(module, datamodule=colored(soft=True))
    batch = module.batches[0]
    logits, _, penalty = combined(kept(), callback, {**batch, "target": batch["target"].argmax(1)}, 0)
    assert len(logits) > 2 * 32
    assert logits.isfinite().all()
    assert penalty.isfinite()
    assert all(p.isfinite().all() for p in module.parameters())


class Other(LightningModule):
    """Does with a network's logits what it is told to, before its criterion."""

    def __init__(self, network, criterion, evaluate):
        super().__init__()
        self.model, self.criterion, self.evaluate, self.losses = network, criterion, evaluate, []

    def training_step(self, batch, batch_idx):
        loss = self.evaluate(self, self.model(batch["image"]), batch["target"])
        self.losses.append(float(loss.detach()))
        return loss

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def test_criteria_of_other_kinds(colored, network):
    """Log-probabilities, torch's function, one logit: generated samples' logits are converted as the batch's are."""

    def losses(evaluate, module=None, criterion="criterion", outputs=3):
        found = Other(network(outputs), module or nn.CrossEntropyLoss(), evaluate)
        trainer(make(start=0, criterion=criterion), limit_train_batches=3).fit(found, datamodule=colored())
        return found.losses

    expected = losses(lambda m, z, y: m.criterion(z, y))
    assert losses(lambda m, z, y: m.criterion(z.log_softmax(1), y), nn.NLLLoss()) == pytest.approx(expected, rel=1e-5)
    assert losses(lambda m, z, y: F.cross_entropy(z, y), criterion="functional") == pytest.approx(expected, rel=1e-5)
    flat = losses(lambda m, z, y: m.criterion(z.flatten(), (y > 0).float()), nn.BCEWithLogitsLoss(), outputs=1)
    rows = losses(lambda m, z, y: m.criterion(z, (y > 0).float()[:, None]), nn.BCEWithLogitsLoss(), outputs=1)
    assert flat == pytest.approx(rows, rel=1e-6)
    with pytest.raises(UserError, match=r"gave \(1,\) a sample and the criterion got \(2,\); name the network"):
        losses(lambda m, z, y: m.criterion(torch.cat([-z, z], 1), (y > 0).long()), outputs=1)


class Foreign(LightningModule):
    """Written without medbolt: tuples for batches, other names, layers of its own."""

    def __init__(self, loss=None):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.fc = nn.Conv2d(3, 6, 3), nn.Linear(24, 3)
        self.loss_fn = loss or nn.CrossEntropyLoss()

    def forward(self, x):
        return self.fc(self.conv(x).relu().flatten(1))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss_fn(self(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


@pytest.fixture
def loader():
    generator = torch.Generator().manual_seed(0)
    pairs = list(zip(torch.randn(12, 3, 4, 4, generator=generator), torch.arange(12) % 3, strict=True))
    return DataLoader(pairs, batch_size=6)


def test_a_foreign_module_that_is_its_own_network(loader):
    module = Foreign()
    callback = make(start=0, features="conv", network="self", criterion="loss_fn", class_counts=COUNTS)
    before = weights(module)
    trainer(callback).fit(module, loader)
    assert weights(module).isfinite().all()
    assert not torch.equal(weights(module), before)


def test_it_goes_with_other_callbacks(kept, colored):
    reweighting = DeferredReweighting(0, "inverse")
    module, callback = kept(), make(start=0)
    trainer(reweighting, callback).fit(module, datamodule=colored())
    for batch, loss in zip(module.batches, module.losses, strict=True):
        logits, target, penalty = combined(module, callback, batch, 0)
        expected = F.cross_entropy(logits, target, reduction="none") * reweighting.weights[target]
        assert loss == pytest.approx(float(expected.mean() + penalty), rel=1e-5)
    centers = FeatureLoss(CenterLoss(3, 96, reduction="none"), 0.1, features="model.stem.0")
    for others in ([make(start=0), centers], [make(start=0), MixUp()], [SharpnessAwareMinimization(), make(start=0)]):
        module = kept(0.05)
        trainer(*others).fit(module, datamodule=colored())
        assert all(p.isfinite().all() for p in module.parameters())


def test_mistakes_at_fit_are_named(kept, colored, loader):
    for options, message in (
        ({"features": "model.layer3"}, "Kept has no layer features='model.layer3'; it has"),
        ({"network": "net"}, "Kept has no network 'net' whose output RareSampleGeneration could see"),
        ({"frequent": [5]}, "RareSampleGeneration got frequent=.5. for 3 classes"),
    ):
        with pytest.raises(UserError, match=message):
            trainer(make(**options)).fit(kept(), datamodule=colored())
    with pytest.raises(UserError, match="RareSampleGeneration needs to know how many training samples"):
        trainer(make(features="conv", network="self", criterion="loss_fn")).fit(Foreign(), loader)


def test_mistakes_in_training_are_named(kept, colored):
    class Around(kept):
        """Calls the layers, not the network."""

        def training_step(self, batch, batch_idx):
            network = self.model
            return self.criterion(network.head(network.body(network.stem(batch["image"]))), batch["target"])

    class Halves(kept):
        """Gives the network its batch in two parts."""

        def training_step(self, batch, batch_idx):
            first, second = (self.model(part) for part in batch["image"].tensor_split(2))
            return self.criterion(torch.cat([first, second]), batch["target"])

    for module, options, message in (
        (Around(), {}, "needs one call of network 'model', and in it of layer 'model.stem'.*but Around does otherwise"),
        (Halves(), {}, r"from maps \(32, 6, H, W\), but the layer gave \(16, 6, 4, 4\)"),
        (kept(), {"channels": 8}, r"from maps \(32, 8, H, W\), but the layer gave \(32, 6, 4, 4\)"),
        (kept(), {"class_counts": [9, 1]}, "of 2 classes, but the batch's targets are from 0 to 2"),
        (kept(), {"network": "model.stem"}, "needs one call of network 'model.stem', and in it of layer 'model.stem'"),
        (kept(), {"network": "model.body"}, r"gave \(8,\) a sample and the criterion got \(3,\); name the network"),
    ):
        with pytest.raises(UserError, match=message):
            trainer(make(**({"start": 0} | options))).fit(module, datamodule=colored())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"channels": 0}, "channels, centers, hidden and strength must be positive"),
        ({"strength": 0.0}, "channels, centers, hidden and strength must be positive"),
        ({"vector_weight": -1.0}, "weights not negative"),
        ({"frequent": 1.5}, "frequent must be a share in"),
        ({"start": 1.5}, "start must be"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)

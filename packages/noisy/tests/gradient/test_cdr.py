from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BaseFinetuning, ModelCheckpoint
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor, nn
from torch.utils.data import DataLoader
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.noisy import CDR
from medbolt.noisy.gradient import cdr


def masked(module: nn.Module, callback: CDR, epoch: int = 9, step: int = 0) -> dict[str, Tensor]:
    """Return the gradients that the callback leaves of random ones, on top of one random set for all calls."""
    generator = torch.Generator().manual_seed(1)
    for p in module.parameters():
        p.grad = torch.randn(p.shape, generator=generator).to(p.dtype)
    fake: Any = SimpleNamespace(strategy=None, current_epoch=epoch, global_step=step)
    lightning: Any = module
    callback.on_train_start(fake, lightning)
    callback.on_before_optimizer_step(fake, lightning, torch.optim.SGD(module.parameters(), 0.1))
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


def by_hand(module: nn.Module, share: float, names: list[list[str]]) -> dict[str, Tensor]:
    """Rank the weights of each list of names in plain Python."""
    generator = torch.Generator().manual_seed(1)
    gradients = {name: torch.randn(p.shape, generator=generator) for name, p in module.named_parameters()}
    values = dict(module.named_parameters())
    for together in names:
        scores = [
            abs(g * w)
            for name in together
            for g, w in zip(gradients[name].flatten().tolist(), values[name].flatten().tolist(), strict=True)
        ]
        limit = sorted(scores, reverse=True)[int(share * len(scores)) - 1]
        for name in together:
            flat, w = gradients[name].flatten(), values[name].flatten().tolist()
            for j, g in enumerate(flat.tolist()):
                flat[j] = share * g if abs(g * w[j]) >= limit * (1 - 1e-6) else 0.0
            gradients[name] = flat.view_as(gradients[name])
    return gradients


WEIGHTS = ["model.0.weight", "model.5.weight"]


@pytest.mark.parametrize("per_tensor", [False, True])
def test_equals_a_plain_loop_and_leaves_biases_and_norms_alone(per_tensor):
    module = ToyClassifier()
    found = masked(module, CDR(0.4, per_tensor=per_tensor))
    expected = by_hand(module, 0.6, [[name] for name in WEIGHTS] if per_tensor else [WEIGHTS])
    torch.testing.assert_close(found, expected)
    kept = sum(int(found[name].ne(0).sum()) for name in WEIGHTS)
    total = sum(found[name].numel() for name in WEIGHTS)
    assert kept == pytest.approx(0.6 * total, abs=2)


def test_the_schedule_is_the_authors():
    callback = CDR(0.3, gradual_epochs=4)
    steps = torch.linspace(1, 0.7, 4).tolist()
    assert [callback.share(epoch) for epoch in range(6)] == pytest.approx([*steps, 0.7, 0.7])
    assert [CDR(0.3, gradual_epochs=1).share(epoch) for epoch in (0, 1)] == [1, 0.7]
    assert CDR(0.3, gradual_epochs=0).share(0) == 0.7


def test_without_noise_or_in_the_first_epoch_nothing_changes():
    module = ToyClassifier()
    for callback, epoch in ((CDR(0.0), 9), (CDR(0.5), 0)):
        for gradient, p in zip(masked(module, callback, epoch).values(), module.parameters(), strict=True):
            assert gradient.ne(0).all()
            assert p.grad is gradient


def test_the_approximation_is_close_seeded_and_another_one_each_step():
    torch.manual_seed(0)
    module = nn.Module()
    module.model = nn.Sequential(nn.Linear(300, 400), nn.Conv2d(40, 50, 5), nn.Linear(400, 10))
    found = [masked(module, CDR(0.4, approximate=True, seed=s), step=t) for s, t in ((0, 0), (0, 0), (0, 1), (1, 0))]
    kept = [sum(int(g.ne(0).sum()) for name, g in part.items() if "weight" in name) for part in found]
    assert kept[0] == kept[1]
    assert len(set(kept)) == 3
    total = 300 * 400 + 40 * 50 * 25 + 4000
    for count in kept:
        assert count / total == pytest.approx(0.6, abs=0.03)


def test_small_networks_are_ranked_exactly_also_when_approximating():
    module = ToyClassifier()
    exact = {name: g.clone() for name, g in masked(module, CDR(0.4)).items()}
    torch.testing.assert_close(masked(module, CDR(0.4, approximate=True)), exact, rtol=0, atol=0)


def test_several_optimizers_mask_their_own_weights_once():
    module, callback = ToyClassifier(), CDR(0.4)
    fake: Any = SimpleNamespace(strategy=None, current_epoch=9, global_step=0)
    for p in module.parameters():
        p.grad = torch.ones_like(p)
    callback.on_train_start(fake, module)
    for layer in (module.model[0], module.model[5]):
        callback.on_before_optimizer_step(fake, module, torch.optim.SGD(layer.parameters(), 0.1))
    for layer in (module.model[0], module.model[5]):
        assert layer.weight.grad.unique().tolist() == pytest.approx([0, 0.6])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_weights_are_ranked_in_float32(dtype):
    module = ToyClassifier().to(dtype)
    with torch.no_grad():
        for p in module.parameters():
            p.mul_(1e-4)  # products vanish in half precision
    found = masked(module, CDR(0.4))
    total = sum(found[name].numel() for name in WEIGHTS)
    assert sum(int(found[name].ne(0).sum()) for name in WEIGHTS) == pytest.approx(0.6 * total, rel=0.1)


def test_missing_gradients_and_a_single_weight_do_no_harm():
    module = ToyClassifier()
    callback, fake = CDR(0.9), SimpleNamespace(strategy=None, current_epoch=99, global_step=0)
    callback.on_train_start(fake, module)  # pyright: ignore[reportArgumentType]
    callback.on_before_optimizer_step(fake, module, torch.optim.SGD(module.parameters(), 0.1))  # pyright: ignore
    single = nn.Module()
    single.model = nn.Linear(1, 1)
    assert masked(single, CDR(0.9), epoch=99)["model.weight"].ne(0).all()


def train(*callbacks: Any, precision: str = "32-true", accumulate: int = 1) -> LightningModule:
    module = ToyClassifier(dropout=0)
    options = {"precision": precision, "accumulate_grad_batches": accumulate}
    trainer(*callbacks, epochs=3, **options).fit(module, datamodule=ToyImages())
    return module


def test_a_fit_equals_a_training_loop_that_masks_by_hand():
    found = weights(train(CDR(0.5, gradual_epochs=2)))
    module, data = ToyClassifier(dropout=0), ToyImages()
    data.setup("fit")
    loader, optimizer = data.train_dataloader(), torch.optim.SGD(module.parameters(), 0.1, momentum=0.9)
    for share in (1.0, 0.5, 0.5):
        loader.sampler.set_epoch(0 if share == 1 else loader.sampler.epoch + 1)
        for batch in loader:
            optimizer.zero_grad()
            module.criterion(module.model(batch["image"]), batch["target"]).backward()
            weight = [p for p in module.parameters() if p.ndim in (2, 4)]
            score = torch.cat([(p.grad * p).abs().flatten() for p in weight])
            limit = score.sort(descending=True).values[int(share * len(score)) - 1]
            for p in weight:
                p.grad *= share * ((p.grad * p).abs() >= limit)
            optimizer.step()
    torch.testing.assert_close(found, weights(module))


def test_mixed_precision_and_accumulation_train():
    for options in ({"precision": "bf16-mixed"}, {"accumulate": 2}):
        assert weights(train(CDR(0.5, gradual_epochs=1), **options)).isfinite().all()


@pytest.mark.parametrize("approximate", [False, True])
def test_resumed_is_uninterrupted(approximate, tmp_path, monkeypatch):
    monkeypatch.setattr(cdr, "_STRIDE", 3)  # so that the network is large enough to approximate

    def fit(folder, path=None):
        module = ToyClassifier()
        torch.manual_seed(1)
        module.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.3), nn.Linear(16, 3))
        torch.manual_seed(0 if path is None else 99)  # a new process finds its generators elsewhere
        method = CDR(0.4, gradual_epochs=3, approximate=approximate)
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        run = trainer(RandomState(7), method, saving, epochs=4, enable_checkpointing=True)
        run.fit(module, datamodule=ToyImages(), ckpt_path=path, weights_only=True)
        return weights(module)

    whole = fit(tmp_path)
    for step in (8, 12):  # of six steps an epoch
        assert torch.equal(fit(tmp_path / "resumed", tmp_path / f"step={step}.ckpt"), whole)


class Noisy(LightningModule):
    """A wide network on points of 100 dimensions of which three tell the class; it memorises wrong labels."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(100, 256), nn.ReLU(), nn.Linear(256, 2))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.05, momentum=0.9, weight_decay=0.1)


@pytest.fixture(scope="module")
def accuracy() -> Callable[..., float]:
    """Return a function that trains with callbacks, and tells the accuracy on clean labels."""

    def points(size: int, seed: int, rate: float):
        generator = torch.Generator().manual_seed(seed)
        y = torch.arange(size) % 2
        x = torch.randn(size, 100, generator=generator)
        x[:, :3] += 1.5 * (2.0 * y[:, None] - 1)
        return x, torch.where(torch.rand(size, generator=generator) < rate, 1 - y, y)

    def fit(seed: int, *callbacks: Any) -> float:
        torch.manual_seed(seed)
        module = Noisy()
        x, y = points(300, seed + 1, rate=0.4)
        samples: Any = list(zip(x, y, strict=True))
        trainer(*callbacks, epochs=30).fit(module, DataLoader(samples, batch_size=50, shuffle=True))
        x, y = points(2000, 99, rate=0.0)
        with torch.no_grad():
            return float((module.net(x).argmax(1) == y).float().mean())

    return fit


def test_generalises_better_than_plain_training_with_the_same_decay_on_a_foreign_module(accuracy):
    masked = [accuracy(seed, CDR(0.4, gradual_epochs=5, network="net")) for seed in range(2)]
    plain = [accuracy(seed) for seed in range(2)]
    assert sum(masked) / 2 > sum(plain) / 2 + 0.02


class LateLayer(BaseFinetuning):
    """Freezes the convolution for an epoch; then gives it to the optimizer."""

    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.model[0])

    def finetune_function(self, pl_module, epoch, optimizer):
        if epoch == 1:
            self.unfreeze_and_add_param_group(pl_module.model[0], optimizer, lr=0.1)


class MaskedShares(Callback):
    """Notes, for each step, the share of the convolution's gradient that is zero; ``None`` without a gradient."""

    def __init__(self) -> None:
        self.found: list[float | None] = []

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        gradient = pl_module.model[0].weight.grad
        self.found.append(None if gradient is None else float(gradient.eq(0).float().mean()))


def test_weights_that_are_unfrozen_later_are_masked_too():
    module, shares = ToyClassifier(dropout=0), MaskedShares()
    module.configure_optimizers = lambda: torch.optim.SGD([p for p in module.parameters() if p.requires_grad], 0.1)
    callbacks = (LateLayer(), CDR(0.6, gradual_epochs=0, per_tensor=True), shares)
    trainer(*callbacks, epochs=2).fit(module, datamodule=ToyImages())
    assert shares.found[:6] == [None] * 6
    assert shares.found[6:] == pytest.approx([0.6] * 6, abs=0.02)


def test_says_what_it_needs():
    with pytest.raises(UserError, match="has no network 'net'"):
        trainer(CDR(0.4, network="net")).fit(ToyClassifier(), datamodule=ToyImages())
    with pytest.raises(UserError, match=r"network 'model\.1' of ToyClassifier has no weights"):
        trainer(CDR(0.4, network="model.1")).fit(ToyClassifier(), datamodule=ToyImages())
    sharded: Any = SimpleNamespace(strategy=FSDPStrategy())
    with pytest.raises(UserError, match="FSDPStrategy gives each process a part"):
        CDR(0.4).on_train_start(sharded, ToyClassifier())
    for wrong in ({"noise_rate": 1.0}, {"noise_rate": 0.4, "gradual_epochs": -1}):
        with pytest.raises(ValueError, match=list(wrong)[-1]):
            CDR(**wrong)


@pytest.mark.parametrize("zeros", [0.0, 0.5, 0.96, 1.0])
@pytest.mark.parametrize("share", [0.001, 0.3, 0.99])
def test_the_threshold_is_the_exact_one_however_many_weights_have_no_gradient(zeros, share):
    generator = torch.Generator().manual_seed(0)
    scores = [torch.rand(size, generator=generator) for size in ((30, 20), (17,))]
    scores[0] *= torch.rand(30, 20, generator=generator) >= zeros
    ranked = torch.cat([score.flatten() for score in scores]).sort(descending=True).values
    assert CDR(0.4)._threshold(scores, share, step=0) == ranked[max(int(share * 617), 1) - 1]

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.longtail import BalancedMixUp, ReverseSampler


class Kept(BalancedMixUp):
    """Keeps mixes and partners of each batch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def objective(self, step):
        self.seen.append((self.mix_of(step), self._partners.images.clone(), self._partners.targets.clone()))
        return super().objective(step)


def test_images_and_losses_are_those_of_two_batches(tailed, watched):
    module, callback = watched(), Kept(alpha=0.5)
    trainer(RandomState(3), callback).fit(module, datamodule=tailed())
    assert len(module.losses) == 4
    for batch, given, loss, (mix, images, targets) in zip(
        module.batches, module.inputs, module.losses, callback.seen, strict=True
    ):
        losses = []
        for i, (x, y, a) in enumerate(zip(batch["image"], batch["target"], mix.image_weight, strict=True)):
            mixed = a * x + (1 - a) * images[i]
            torch.testing.assert_close(given[i], mixed)
            log_p = module.model(mixed[None]).log_softmax(1)[0]
            losses.append(-a * log_p[y] - (1 - a) * log_p[targets[i]])
        assert loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)


def test_the_batch_as_the_data_are_prevails_by_alpha(tailed, watched):
    callback = Kept()
    trainer(callback, limit_train_batches=1).fit(watched(), datamodule=tailed())  # partners of eight
    torch.manual_seed(0)
    for alpha in (0.1, 0.3):
        callback.alpha = alpha
        mix = callback.draw(8000, None, torch.device("cpu"))
        assert float(mix.image_weight.mean()) == pytest.approx(1 / (1 + alpha), abs=0.01)
        assert torch.equal(mix.partner, torch.arange(8000) % 8)


def test_the_second_batch_is_balanced_or_as_its_sampler_has_it(tailed, watched):
    for sampler, expected in ((None, [1 / 3] * 3), (ReverseSampler, [1 / 17, 4 / 17, 12 / 17])):
        callback = Kept(**({} if sampler is None else {"sampler": sampler}))
        trainer(callback, epochs=10, limit_val_batches=0).fit(watched(), datamodule=tailed())
        targets = torch.cat([targets for _, _, targets in callback.seen])
        found = torch.bincount(targets, minlength=3) / len(targets)
        assert (found - torch.tensor(expected)).abs().max() < 0.08


def test_resumed_is_uninterrupted(tailed, watched, tmp_path):
    def fit(folder, path=None):
        module = watched(0.1)
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=3, save_top_k=-1)
        run = trainer(RandomState(1), BalancedMixUp(), saving, epochs=3, enable_checkpointing=True)
        run.fit(module, datamodule=tailed(), ckpt_path=path)
        return module

    whole = fit(tmp_path / "whole")
    for step in (6, 9):  # of four batches an epoch
        assert torch.equal(weights(fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")), weights(whole))


def test_the_tail_is_learned_sooner(tailed, watched):
    def loss_of_the_rare(*callbacks):
        module = watched(0.05)
        trainer(RandomState(0), *callbacks, epochs=15, limit_val_batches=0).fit(module, datamodule=tailed())
        batch = next(iter(tailed(32).train_eval_dataloader()))
        losses = torch.nn.functional.cross_entropy(module.model(batch["image"]), batch["target"], reduction="none")
        return float(losses[batch["target"] == 2].mean())

    assert loss_of_the_rare(BalancedMixUp(alpha=0.5)) < loss_of_the_rare() - 0.1


def test_last_batches_and_batches_of_one_and_bfloat16(tailed, watched):
    for options, batch_size in (({"precision": "bf16-mixed"}, 7), ({}, 1)):
        module = watched(0.01)
        trainer(BalancedMixUp(), **options).fit(module, datamodule=tailed(batch_size, drop_last=False))
        assert len(module.losses) == -(-32 // batch_size)
        assert all(p.isfinite().all() for p in module.parameters())


def test_a_network_that_is_given_other_images_is_named(tailed, watched):
    class Cropped(watched):
        def __init__(self):
            super().__init__()
            self.model[1] = torch.nn.Linear(12, 3)

        def training_step(self, batch, batch_idx):
            return self.criterion(self.model(batch["image"][..., :2, :2]), batch["target"])

    with pytest.raises(UserError, match=r"BalancedMixUp mixes images of shape \(3, 2, 2\), as the network is given"):
        trainer(BalancedMixUp()).fit(Cropped(), datamodule=tailed())
    with pytest.raises(UserError, match="takes a data module of medbolt, such as TableDataModule"):
        trainer(BalancedMixUp()).fit(watched(), tailed().train_dataloader())
    with pytest.raises(ValueError, match="alpha must be positive"):
        BalancedMixUp(alpha=0)

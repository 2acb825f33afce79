import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.longtail import BilateralBranch, ClassBalancedSampler, ExpertsClassifier, Remix
from medbolt.longtail.experts.bilateral_branch import share_of_first


class Kept(BilateralBranch):
    """Keeps the epoch, the second batch and the losses of each batch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def objective(self, step):
        losses = super().objective(step)
        partners = self._partners
        self.seen.append(
            (step.module.current_epoch, partners.images.clone(), partners.targets.clone(), losses.detach())
        )
        return losses


@pytest.fixture
def plain(small):
    """A network without batch norm, whose rows do not depend on one another."""

    def make():
        network = small()
        network.stem[2] = network.body[2] = torch.nn.Identity()
        return network

    return make


def test_logits_and_losses_are_those_of_two_branches_on_two_batches(kept, add, overlapping, plain):
    module, callback = kept(network=plain()), Kept()
    trainer(add(2), callback, epochs=4).fit(module, datamodule=overlapping())
    assert len(callback.seen) == len(module.logits) == 4 * 7
    assert len({tuple(images.flatten().tolist()) for _, images, _, _ in callback.seen}) == 4 * 7
    network = module.model.network

    def branch(k, image):
        return network.head.copies[k](network.relu(network.body.copies[k](network.stem(image[None]))))[0]

    for batch, logits, (epoch, images, targets, losses) in zip(
        module.batches, module.logits, callback.seen, strict=True
    ):
        alpha = 1 - (epoch / 4) ** 2
        for i in range(0, len(batch["target"]), 5):
            z = alpha * branch(0, batch["image"][i]) + (1 - alpha) * branch(1, images[i])
            torch.testing.assert_close(logits[i], z.detach(), rtol=1e-4, atol=1e-5)
            log_p = z.log_softmax(0)
            expected = -alpha * log_p[batch["target"][i]] - (1 - alpha) * log_p[targets[i]]
            assert float(losses[i]) == pytest.approx(float(expected), rel=1e-4)


def test_the_weight_falls_as_a_parabola_of_the_epoch():
    assert [share_of_first(t, 10) for t in (0, 5, 9, 10, 12)] == pytest.approx([1, 0.75, 0.19, 0, 0])


def test_in_the_first_epoch_it_is_plain_training_of_the_first_branch(kept, add, overlapping, plain):
    module, other = kept(0.1, network=plain()), kept(0.1, network=plain())
    experts = ExpertsClassifier(plain(), 2, ["body"])
    trainer(RandomState(1), add(2), BilateralBranch(epochs=5)).fit(module, datamodule=overlapping())
    trainer(RandomState(1)).fit(other, datamodule=overlapping())
    learned = module.model.network
    assert module.losses == pytest.approx(other.losses, rel=1e-5)
    torch.testing.assert_close(learned.body.copies[0][1].weight, other.model.body[1].weight)
    torch.testing.assert_close(learned.stem[1].weight, other.model.stem[1].weight)
    assert torch.equal(learned.body.copies[1][1].weight, experts.network.body.copies[1][1].weight)


def test_after_the_last_epoch_only_the_second_branch_learns_from_the_reversed_samples(kept, add, overlapping, plain):
    module, callback = kept(0.1, network=plain()), Kept(epochs=1)
    trainer(add(2), callback, epochs=2).fit(module, datamodule=overlapping())
    targets = torch.cat([targets for _, _, targets, _ in callback.seen])
    share = torch.bincount(targets, minlength=3) / len(targets)
    expected = torch.tensor([1 / 200, 1 / 20, 1 / 4])
    assert (share - expected / expected.sum()).abs().max() < 0.08
    for (epoch, _, targets, losses), logits in zip(callback.seen, module.logits, strict=True):
        if epoch == 1:
            torch.testing.assert_close(losses, F.cross_entropy(logits, targets, reduction="none"))


def test_evaluation_sees_the_mean_of_both_branches_on_one_image(kept, add, overlapping):
    class Seen(kept):
        def validation_step(self, batch, batch_idx):
            seen.append((self.model(batch["image"]), self.model.each(batch["image"])))

    seen = []
    trainer(add(2), BilateralBranch(), epochs=2).fit(Seen(), datamodule=overlapping())
    assert len(seen) == 12
    for logits, experts in seen:
        torch.testing.assert_close(logits, experts.mean(0))


def test_another_sampler_draws_otherwise(kept, add, overlapping):
    callback = Kept(sampler=ClassBalancedSampler)
    trainer(add(2), callback).fit(kept(), datamodule=overlapping())
    targets = torch.cat([targets for _, _, targets, _ in callback.seen])
    assert (torch.bincount(targets, minlength=3) / len(targets) - 1 / 3).abs().max() < 0.1


def test_resumed_is_uninterrupted(kept, add, overlapping, tmp_path):
    def fit(folder, path=None):
        module = kept(0.1)
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)
        run = trainer(RandomState(1), add(2), BilateralBranch(), saving, epochs=3, enable_checkpointing=True)
        run.fit(module, datamodule=overlapping(), ckpt_path=path)
        return module

    whole = fit(tmp_path / "whole")
    for step in (5, 15):  # of seven batches an epoch
        assert torch.equal(weights(fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")), weights(whole))


def test_it_finds_the_tail(task, add, overlapping):
    found = []
    for callbacks in ((), (add(2), BilateralBranch())):
        module = task()
        run = trainer(RandomState(), *callbacks, epochs=10, limit_val_batches=0)
        run.fit(module, datamodule=overlapping())
        found.append(run.test(module, datamodule=overlapping(), verbose=False)[0])
    assert found[1]["test/recall/rare"] > found[0]["test/recall/rare"] + 0.3
    assert found[1]["test/balanced_accuracy"] > found[0]["test/balanced_accuracy"] + 0.1


@pytest.mark.parametrize(
    ("batch_size", "options"), [(30, {"precision": "bf16-mixed"}), (1, {}), (9, {"accumulate_grad_batches": 2})]
)
def test_last_batches_batches_of_one_and_bfloat16(kept, add, overlapping, plain, batch_size, options):
    module = kept(0.01, network=plain())
    data = overlapping(batch_size, drop_last=False)
    trainer(add(2), BilateralBranch(), epochs=2, limit_train_batches=25, **options).fit(module, datamodule=data)
    assert all(p.isfinite().all() for p in module.parameters())


def test_soft_targets_and_mixtures(kept, add, overlapping):
    module = kept(0.1)
    trainer(add(2), BilateralBranch()).fit(module, datamodule=overlapping(soft=True))
    trainer(add(2), BilateralBranch(), Remix()).fit(module, datamodule=overlapping())
    assert len(module.losses) == 14
    assert all(p.isfinite().all() for p in module.parameters())


def test_mistakes_are_named(kept, add, overlapping):
    with pytest.raises(UserError, match=r"BilateralBranch needs a network of experts.*put AddExperts\(2\) before"):
        trainer(BilateralBranch(), add(2)).fit(kept(), datamodule=overlapping())
    with pytest.raises(UserError, match="BilateralBranch trains 2 experts, but 'model' of Kept has 3"):
        trainer(add(3), BilateralBranch()).fit(kept(), datamodule=overlapping())
    with pytest.raises(UserError, match="changes its weights over all epochs, but the trainer has no max_epochs"):
        trainer(add(2), BilateralBranch(), epochs=-1, max_steps=3).fit(kept(), datamodule=overlapping())
    with pytest.raises(UserError, match="takes a data module of medbolt, such as TableDataModule"):
        trainer(add(2), BilateralBranch()).fit(kept(), overlapping().train_dataloader())
    with pytest.raises(ValueError, match="epochs must be positive"):
        BilateralBranch(epochs=0)

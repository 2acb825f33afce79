from functools import partial

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.longtail import (
    AddExperts,
    CosineHead,
    DeferredReweighting,
    DiverseExperts,
    ExpertsClassifier,
    LDAMLoss,
    Remix,
)
from medbolt.longtail.experts.diverse import diversity

COUNTS = [200, 20, 4]


class Kept(DiverseExperts):
    """Keeps what the experts said, targets and losses."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def objective(self, step):
        losses = super().objective(step)
        self.seen.append((step.module.current_epoch, step.features.detach(), step.target, losses.detach()))
        return losses


def divergence(p, q):
    return float((p * (p / q).log()).sum())


def loop(experts, targets, weight, temperature, eta=0.05, counts=COUNTS, by_class=True):
    """The formula sample by sample, with the divergence from the mean written out."""
    beta = [1 - eta + eta * len(counts) * n / sum(counts) for n in counts]
    t = [temperature * (b / max(beta) if by_class else 1) for b in beta]
    t, rows = torch.tensor(t, dtype=torch.float64), []
    for i, y in enumerate(targets):
        z = experts[:, i].double()
        mean = (z.mean(0) / t).softmax(0)
        row = 0.0
        for own in z:
            row += float(F.cross_entropy(own, y)) - weight * float(t.mean()) ** 2 * divergence(
                mean, (own / t).softmax(0)
            )
        rows.append(row)
    return torch.tensor(rows)


@pytest.mark.parametrize("number", [2, 3])
def test_the_loss_is_the_formula_with_temperatures_by_class_from_their_epoch_on(kept, add, overlapping, number):
    callback = Kept(weight=0.3, temperature=1.5, eta=0.4, start=1)
    trainer(add(number), callback, epochs=2).fit(kept(), datamodule=overlapping())
    assert len(callback.seen) == 14
    for epoch, experts, target, losses in callback.seen:
        expected = loop(experts, target, 0.3, 1.5, 0.4, by_class=epoch >= 1)
        torch.testing.assert_close(losses, expected.float(), rtol=1e-4, atol=1e-5)
    with_temperatures = loop(*callback.seen[-1][1:3], 0.3, 1.5, 0.4, by_class=False)
    assert (callback.seen[-1][3] - with_temperatures).abs().max() > 1e-3  # it makes a difference


def test_the_gradient_is_that_of_divergences_from_a_detached_mean():
    z = torch.randn(3, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    (found,) = torch.autograd.grad(diversity(z).sum(), z)
    mean = z.mean(0).detach().softmax(1)
    (expected,) = torch.autograd.grad(sum(F.kl_div(own.log_softmax(1), mean, reduction="sum") for own in z), z)
    torch.testing.assert_close(found, expected)


def test_the_diversity_is_not_negative_and_at_most_the_cross_entropy():
    z = torch.randn(3, 500, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 20
    y = torch.arange(500) % 4
    found, limit = diversity(z), sum(F.cross_entropy(own, y, reduction="none") for own in z)
    assert (found >= -1e-12).all()
    assert (found <= limit + 1e-9).all()
    torch.testing.assert_close(diversity(z[:1].expand(3, -1, -1)), torch.zeros(500, dtype=torch.float64))


def test_one_expert_is_plain_training(kept, add, overlapping):
    def fit(*callbacks):
        module = kept(0.1)
        trainer(RandomState(1), *callbacks, epochs=2).fit(module, datamodule=overlapping())
        return weights(module.model)

    torch.testing.assert_close(fit(add(1), DiverseExperts()), fit(), rtol=1e-5, atol=1e-6)


def test_without_diversity_it_is_the_sum_of_the_criterion_s_losses(kept, add, overlapping):
    criterion = LDAMLoss(class_counts=COUNTS, scale=2.0)
    callback = Kept(weight=0.0)
    trainer(add(), callback).fit(kept(criterion=criterion), datamodule=overlapping())
    for _, experts, target, losses in callback.seen:
        expected = [LDAMLoss(0.5, 2.0, COUNTS, "none")(own, target) for own in experts]
        torch.testing.assert_close(losses, sum(expected), rtol=1e-4, atol=1e-5)


def test_reweighting_before_it_reaches_every_expert(kept, add, overlapping):
    reweighting, callback = DeferredReweighting(0, "inverse"), Kept(weight=0.0)
    trainer(add(), reweighting, callback).fit(kept(), datamodule=overlapping())
    for _, experts, target, losses in callback.seen:
        expected = sum(F.cross_entropy(own, target, reduction="none") for own in experts)
        torch.testing.assert_close(losses, expected * reweighting.weights[target], rtol=1e-4, atol=1e-5)


def test_resumed_is_uninterrupted_across_the_start_of_temperatures(kept, add, overlapping, tmp_path):
    def fit(folder, path=None):
        module = kept(0.1)
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        callbacks = [RandomState(7), add(), DiverseExperts(eta=0.5, start=1), saving]
        trainer(*callbacks, epochs=3, enable_checkpointing=True).fit(module, datamodule=overlapping(), ckpt_path=path)
        return module

    whole = fit(tmp_path / "whole")
    for step in (4, 12):  # of seven batches an epoch
        assert torch.equal(weights(fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")), weights(whole))


def test_it_finds_the_tail_and_its_experts_differ_by_the_weight(task, add, overlapping):
    def trained(criterion, *callbacks):
        module = task(criterion=criterion)
        run = trainer(RandomState(), *callbacks, epochs=8, limit_val_batches=0)
        run.fit(module, datamodule=overlapping())
        return module.model.eval(), run.test(module, datamodule=overlapping(), verbose=False)[0]

    def ride(weight):
        experts = add(make_head=partial(CosineHead, scale=4.0))
        return trained(LDAMLoss(scale=4.0), experts, DeferredReweighting(0.5), DiverseExperts(weight, start=0.5))

    _, plain = trained(nn.CrossEntropyLoss())
    network, found = ride(0.2)
    assert found["test/recall/rare"] > plain["test/recall/rare"] + 0.4
    assert found["test/balanced_accuracy"] > plain["test/balanced_accuracy"] + 0.15
    (batch,) = overlapping(180).test_dataloader()
    different, _ = ride(1.0)
    assert diversity(different.each(batch["image"])).mean() > 3 * diversity(network.each(batch["image"])).mean()


@pytest.mark.parametrize("options", [{"precision": "bf16-mixed"}, {}, {"accumulate_grad_batches": 3}])
def test_bfloat16_batches_of_one_and_accumulation(kept, overlapping, options):
    batch_size = 1 if not options else 8
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 3))
    module = kept(0.01, network=network)
    add = AddExperts(3, ["1"], "3")
    trainer(add, DiverseExperts(class_counts=[200, 20, 0], start=0), **options).fit(
        module, datamodule=overlapping(batch_size)
    )
    assert all(p.isfinite().all() for p in module.parameters())


def test_soft_targets_and_mixtures(kept, add, overlapping):
    callback = Kept(weight=0.0, class_counts=COUNTS)
    trainer(add(), callback).fit(kept(), datamodule=overlapping(soft=True))
    for _, experts, target, losses in callback.seen:
        expected = sum(F.cross_entropy(own, target, reduction="none") for own in experts)
        torch.testing.assert_close(losses, expected, rtol=1e-4, atol=1e-5)
    module = kept(0.1)
    trainer(add(), DiverseExperts(), Remix()).fit(module, datamodule=overlapping())
    assert all(p.isfinite().all() for p in module.parameters())


def test_mistakes_are_named(kept, add, overlapping, small):
    with pytest.raises(UserError, match=r"DiverseExperts needs a network of experts.*put AddExperts\(3\) before"):
        trainer(DiverseExperts(), add()).fit(kept(), datamodule=overlapping())
    with pytest.raises(UserError, match="DiverseExperts has 2 class_counts but the network gives 3 logits"):
        trainer(add(), DiverseExperts(class_counts=[3, 4])).fit(kept(), datamodule=overlapping())
    network = ExpertsClassifier(small(), 2, ["body"])
    with pytest.raises(UserError, match="DiverseExperts needs to know how many training samples"):
        trainer(DiverseExperts()).fit(kept(network=network), overlapping().train_dataloader())
    for options in ({"weight": -1.0}, {"temperature": 0.0}, {"eta": 1.0}):
        with pytest.raises(ValueError, match="weight must not be negative"):
            DiverseExperts(**options)
    with pytest.raises(ValueError, match="start must be"):
        DiverseExperts(start=1.5)

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ObjectiveCallback, RandomState, UserError
from medbolt.longtail import DeferredReweighting, LDAMLoss, Remix, class_weights

COUNTS = [90, 9, 1]
BY_CLASS = class_weights(torch.tensor(COUNTS).float(), "effective", 0.9999)


class Factors(ObjectiveCallback):
    """Stands outside and notes by which factor each sample's loss was multiplied, with its epoch and target."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def objective(self, step):
        losses = step.loss()
        plain = step.module.criterion
        factor = losses.detach() / F.cross_entropy(step.logits.detach(), step.target, reduction="none")
        assert isinstance(plain, nn.CrossEntropyLoss)
        self.seen.append((step.module.current_epoch, step.target, factor))
        return losses


@pytest.mark.parametrize(("start", "first"), [(2, 2), (0.5, 2), (0, 0), (1.0, 4)])
def test_the_weights_begin_exactly_at_their_epoch(start, first):
    factors = Factors()
    callback = DeferredReweighting(start, class_counts=COUNTS)
    trainer(callback, factors, epochs=4).fit(ToyClassifier(), datamodule=ToyImages())
    assert {epoch for epoch, _, _ in factors.seen} == {0, 1, 2, 3}
    for epoch, target, factor in factors.seen:
        torch.testing.assert_close(
            factor, BY_CLASS[target] if epoch >= first else torch.ones(len(target)), rtol=1e-4, atol=0
        )


def test_the_loss_is_the_plain_loop_s(foreign, foreign_loader):
    module = foreign()
    x, y = next(iter(foreign_loader))
    logits = foreign()(x).detach()
    expected = sum(float(BY_CLASS[c]) * float(F.cross_entropy(z, c)) for z, c in zip(logits, y, strict=True)) / len(y)
    callback = DeferredReweighting(0, class_counts=COUNTS, criterion="loss_fn", network="self")
    trainer(callback).fit(module, foreign_loader)
    assert module.losses[0] == pytest.approx(expected, rel=1e-5)


def test_counts_come_from_the_data_module(overlapping, overlapping_task):
    callback = DeferredReweighting(0, weighting="inverse")
    trainer(callback, limit_train_batches=1).fit(overlapping_task(), datamodule=overlapping())
    torch.testing.assert_close(callback.weights, class_weights(torch.tensor([200.0, 20.0, 4.0])))


def test_resumed_is_uninterrupted_across_the_switch(tmp_path):
    def fit(folder, path=None):
        module = ToyClassifier()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        callbacks = [RandomState(7), DeferredReweighting(2, class_counts=COUNTS), saving]
        trainer(*callbacks, epochs=4, enable_checkpointing=True).fit(module, datamodule=ToyImages(), ckpt_path=path)
        return module

    whole = fit(tmp_path / "whole")
    for step in (8, 12, 16):  # of six batches an epoch: before the switch, at it, after
        assert torch.equal(weights(fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")), weights(whole))


def test_soft_targets_weigh_by_the_mean_of_their_labels(foreign):
    y = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0.2, 0.3, 0.5], [0, 0, 0], [0, 1, 1]])
    x = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    module, criterion = foreign(), nn.CrossEntropyLoss()
    losses = F.cross_entropy(module(x), y, reduction="none")
    w = [
        BY_CLASS[0],
        (BY_CLASS[1] + BY_CLASS[2]) / 2,
        y[2] @ BY_CLASS,
        torch.tensor(1.0),
        (BY_CLASS[1] + BY_CLASS[2]) / 2,
    ]
    expected = float((losses * torch.stack(w)).mean())
    module = foreign(criterion)
    callback = DeferredReweighting(0, class_counts=COUNTS, criterion="loss_fn", network="self")
    trainer(callback).fit(module, DataLoader(TensorDataset(x, y), batch_size=5))
    assert module.losses == [pytest.approx(expected, rel=1e-5)]


def test_each_label_of_a_mixture_has_its_own_weight(foreign, foreign_loader):
    class Swapped(Remix):
        def draw(self, size, target, device):
            mix = super().draw(size, target, device)
            self.mix = mix
            return mix

    torch.manual_seed(0)
    module, remix = foreign(), Swapped(class_counts=COUNTS, criterion="loss_fn", network="self")
    callback = DeferredReweighting(0, class_counts=COUNTS, criterion="loss_fn", network="self")
    x, y = next(iter(foreign_loader))
    trainer(callback, remix, limit_train_batches=1).fit(module, foreign_loader)
    mix = remix.mix
    mixed = mix.image_weight[:, None] * x + (1 - mix.image_weight[:, None]) * x[mix.partner]
    logits = foreign()(mixed)
    both = [BY_CLASS[t] * F.cross_entropy(logits, t, reduction="none") for t in (y, y[mix.partner])]
    expected = (mix.target_weight * both[0] + (1 - mix.target_weight) * both[1]).mean()
    assert module.losses == [pytest.approx(float(expected), rel=1e-5)]


def test_ldam_drw_helps_the_tail(overlapping, overlapping_task):
    def recall(*callbacks):
        task = overlapping_task(criterion=LDAMLoss(scale=1.0))
        run = trainer(RandomState(), *callbacks, epochs=8, limit_val_batches=0)
        run.fit(task, overlapping())
        return run.test(task, overlapping(), verbose=False)[0]["test/balanced_accuracy"]

    assert recall(DeferredReweighting(0.5)) > recall() + 0.05


def test_gradient_is_finite_under_bfloat16_for_a_batch_of_one_and_an_empty_class():
    for options in ({"precision": "bf16-mixed"}, {}):
        module = ToyClassifier()
        module.model[1] = nn.Identity()
        data = ToyImages(batch_size=1) if not options else ToyImages()
        trainer(DeferredReweighting(0, class_counts=[24, 3, 0]), **options).fit(module, datamodule=data)
        assert all(p.isfinite().all() for p in module.parameters())


def test_counts_of_other_classes_are_refused():
    with pytest.raises(UserError, match="has 2 class_counts but the network gives 3 logits"):
        trainer(DeferredReweighting(0, class_counts=[3, 4])).fit(ToyClassifier(), datamodule=ToyImages())


def test_unknown_counts_are_asked_for(foreign, foreign_loader):
    with pytest.raises(UserError, match="DeferredReweighting needs to know how many training samples"):
        trainer(DeferredReweighting(criterion="loss_fn")).fit(foreign(), foreign_loader)


def test_options_are_checked():
    with pytest.raises(ValueError, match="start must be"):
        DeferredReweighting(1.5)
    with pytest.raises(ValueError, match="beta must be"):
        DeferredReweighting(beta=1.0)


def test_a_configuration_tells_shares_from_epochs():
    from jsonargparse import ArgumentParser

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Callback, "callback")
    for text, expected in (("0.8", 0.8), ("160", 160), ("1", 1), ("1.0", 1.0)):
        arguments = ["--callback=medbolt.longtail.DeferredReweighting", f"--callback.start={text}"]
        start = parser.instantiate_classes(parser.parse_args(arguments)).callback.start
        assert (start, type(start)) == (expected, type(expected))

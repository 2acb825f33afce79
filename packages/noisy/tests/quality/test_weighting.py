import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn

from medbolt.core import ObjectiveCallback
from medbolt.noisy import ConfidentWeighting, NoisyLabels, SelectionQuality, SymmetricNoise, label_issues


@pytest.fixture
def noisy(colours):
    return NoisyLabels(colours.Colours(240), SymmetricNoise(0.3))


class Spy(ObjectiveCallback):
    """Writes down the loss and what it is inward."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def objective(self, step):
        losses, plain = step.loss(), nn.functional.cross_entropy(step.logits, step.target, reduction="none")
        epoch, ratios = step.module.current_epoch, (losses / plain).tolist()
        self.seen += [(epoch, i, ratio) for i, ratio in zip(step.index.tolist(), ratios, strict=True)]
        return losses


@pytest.mark.parametrize("soft", [False, True])
def test_the_weights_are_those_of_the_averages_at_the_epoch_s_start(colours, noisy, trainer, soft):
    class Snapshots(ConfidentWeighting):
        def begin_epoch(self, trainer, pl_module):
            super().begin_epoch(trainer, pl_module)
            averages.append((self.memory["given"].clone(), self.memory["probability"].clone()))

    averages, spy = [], Spy()
    trainer(Snapshots(start_epoch=2, soft=soft), spy, epochs=4).fit(colours.task(), datamodule=noisy)
    for epoch, (given, p) in enumerate(averages):
        applied = {index: ratio for e, index, ratio in spy.seen if e == epoch}
        if epoch < 2:
            wanted = torch.ones(240)
        else:
            own = p.gather(1, given[:, None]).squeeze(1)
            raw = own if soft else (~label_issues(given, p)).float()
            wanted = raw * 240 / raw.sum()
        torch.testing.assert_close(torch.tensor([applied[i] for i in range(240)]), wanted, rtol=1e-4, atol=1e-5)
        assert float(wanted.mean()) == pytest.approx(1)


def test_what_it_leaves_out_is_mislabelled(colours, noisy, trainer):
    weighting = ConfidentWeighting(start_epoch=3)
    run = trainer(weighting, SelectionQuality(), epochs=8)
    run.fit(colours.task(), datamodule=noisy)
    left_out = weighting.memory["weight"] == 0
    wrong = noisy.clean_targets() != noisy.train_targets
    assert (left_out & wrong).sum() > 0.9 * wrong.sum()
    assert (left_out & ~wrong).sum() < 0.1 * wrong.sum()
    assert run.callback_metrics["lnl/select/precision"] > 0.95
    assert run.callback_metrics["lnl/select/recall"] > 0.95


def test_before_the_start_it_is_the_criterion(colours, noisy, trainer):
    plain, weighted = colours.task(), colours.task()
    trainer(epochs=2).fit(plain, datamodule=noisy)
    trainer(ConfidentWeighting(start_epoch=2), epochs=2).fit(weighted, datamodule=noisy)
    torch.testing.assert_close(weighted.state_dict(), plain.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("saves", [{}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 33}], ids=str)
def test_resumed_is_uninterrupted(colours, noisy, trainer, tmp_path, saves):
    def fit(folder, epochs, path=None):
        weighting, task = ConfidentWeighting(start_epoch=1), colours.task()
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, **saves)
        run = trainer(weighting, saving, epochs=epochs, enable_checkpointing=True)
        run.fit(task, datamodule=noisy, ckpt_path=path, weights_only=True)
        return weighting.memory.fields, task.state_dict()

    whole = fit("whole", 4)
    fit("part", 2)
    torch.testing.assert_close(fit("part", 4, tmp_path / "part/last.ckpt"), whole, rtol=0, atol=0)
    assert (whole[0]["weight"] == 0).any()


def test_finite_under_bfloat16_from_the_first_epoch(colours, noisy, trainer):
    weighting, task = ConfidentWeighting(start_epoch=0, soft=True), colours.task()
    trainer(weighting, precision="bf16-mixed", epochs=2).fit(task, datamodule=noisy)
    assert all(p.isfinite().all() for p in [*task.parameters(), *weighting.memory.fields.values()])


def test_a_single_class_and_batches_of_one(colours, trainer):
    data = colours.Colours(2, batch_size=1)  # both red
    weighting = ConfidentWeighting(start_epoch=1)
    data.setup = lambda stage: None  # which would ask for the other classes
    trainer(weighting, epochs=3, limit_val_batches=0).fit(colours.task(), datamodule=data)
    assert weighting.memory["weight"].tolist() == [1, 1]


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"start_epoch": -1}])
def test_wrong_arguments(options):
    with pytest.raises(ValueError, match="must"):
        ConfidentWeighting(**options)

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.noisy import CriterionEpoch, PeerSieveLoss


class Scheduled(nn.Module):
    """Cross entropy that notes in which epoch it was called, in training and in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.epoch: int | None = None
        self.calls: list[tuple[int | None, bool]] = []

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def forward(self, logits, target):
        self.calls.append((self.epoch, torch.is_grad_enabled()))
        return nn.functional.cross_entropy(logits, target)


class WithoutMomentum(ToyClassifier):
    """Whose optimizer remembers nothing, for each fit makes a new one."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


class Validated(ToyClassifier):
    def __init__(self, criterion: nn.Module) -> None:
        super().__init__()
        self.criterion = criterion

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> None:
        self.criterion(self.model(batch["image"]), batch["target"])

    test_step = validation_step


def test_tells_each_epoch_before_its_first_batch_and_after_a_sanity_check():
    loss = Scheduled()
    trainer(CriterionEpoch(), epochs=2, num_sanity_val_steps=1).fit(Validated(loss), datamodule=ToyImages())
    training = [epoch for epoch, is_training in loss.calls if is_training]
    evaluation = [epoch for epoch, is_training in loss.calls if not is_training]
    assert training == [0] * 6 + [1] * 6
    assert evaluation == [0] + [0] * 3 + [1] * 3


def test_a_test_after_the_fit_and_one_of_a_checkpoint_use_the_last_epoch(tmp_path):
    callback, loss = CriterionEpoch(), Scheduled()
    module, saves = Validated(loss), ModelCheckpoint(tmp_path, "saved")
    run = trainer(callback, saves, epochs=3, enable_checkpointing=True)
    run.fit(module, datamodule=ToyImages())
    for tested, path in ((run, None), (trainer(CriterionEpoch()), tmp_path / "saved.ckpt")):
        loss.calls.clear()
        tested.test(module, datamodule=ToyImages(), ckpt_path=path, verbose=False, weights_only=True)
        assert loss.calls == [(2, False)] * 3
    loss.calls.clear()
    trainer(CriterionEpoch()).test(module, datamodule=ToyImages(), verbose=False)
    assert loss.calls == [(0, False)] * 3


def test_finds_every_part_and_nested_attributes():
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ModuleList([Scheduled(), nn.CrossEntropyLoss(), Scheduled()])

        def forward(self, logits, target):
            return sum(part(logits, target) for part in self.parts)

    module = ToyClassifier()
    module.criterion = Sum()
    trainer(CriterionEpoch(), epochs=3).fit(module, datamodule=ToyImages())
    assert [module.criterion.parts[i].epoch for i in (0, 2)] == [2, 2]
    module = ToyClassifier()
    module.criterion = Sum()
    trainer(CriterionEpoch("criterion.parts.2"), epochs=3).fit(module, datamodule=ToyImages())
    assert [module.criterion.parts[i].epoch for i in (0, 2)] == [None, 2]


def fit(folder: Path, path: Path | None = None, **saves: Any) -> torch.Tensor:
    module = ToyClassifier(lr=0.02)
    module.criterion = PeerSieveLoss(beta=0.5, warmup_epochs=1, ramp_epochs=2, sieve_epoch=3)
    saving = ModelCheckpoint(folder, "{step}", save_top_k=-1, **saves)
    run = trainer(RandomState(1), CriterionEpoch(), saving, epochs=6, enable_checkpointing=True)
    run.fit(module, datamodule=ToyImages(), ckpt_path=path, weights_only=True)
    assert module.criterion.estimated is not None
    return torch.cat([weights(module), module.criterion.estimated, module.criterion.passed])


@pytest.mark.parametrize("saves", [{"save_on_train_epoch_end": False}, {"every_n_train_steps": 4}], ids=str)
def test_a_resumed_sieve_is_the_uninterrupted_one(tmp_path, saves):
    whole = fit(tmp_path / "whole", **saves)
    for path in sorted((tmp_path / "whole").glob("*.ckpt")):
        if "step=36" not in path.stem:
            assert torch.equal(fit(tmp_path / path.stem, path, **saves), whole)


def test_a_second_fit_forgets_what_the_first_one_counted():
    module = ToyClassifier()
    module.criterion = PeerSieveLoss(beta=0.5, warmup_epochs=0, ramp_epochs=1, sieve_epoch=0)
    run, callback = trainer(CriterionEpoch(), epochs=2), CriterionEpoch()
    run.fit(module, datamodule=ToyImages())
    assert module.criterion.estimated is not None
    trainer(callback, epochs=1).fit(module, datamodule=ToyImages())
    assert module.criterion.estimated is None


def test_a_fit_that_goes_on_keeps_what_was_counted():
    def fitted(*epochs):
        module = WithoutMomentum()
        module.criterion = PeerSieveLoss(beta=0.5, warmup_epochs=0, ramp_epochs=1, sieve_epoch=1)
        run = trainer(RandomState(7), CriterionEpoch(), epochs=1)
        for last in epochs:
            run.fit_loop.max_epochs = last
            run.fit(module, datamodule=ToyImages())
        return module.criterion.estimated, weights(module)

    for goes_on, whole in zip(fitted(2, 4), fitted(4), strict=True):
        assert torch.equal(goes_on, whole)


def test_says_what_it_needs():
    with pytest.raises(UserError, match="has no criterion 'loss_fn' for CriterionEpoch"):
        trainer(CriterionEpoch("loss_fn")).fit(ToyClassifier(), datamodule=ToyImages())
    with pytest.raises(UserError, match="a CrossEntropyLoss, has no set_epoch"):
        trainer(CriterionEpoch()).fit(ToyClassifier(), datamodule=ToyImages())

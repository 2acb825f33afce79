"""Resumed inside an epoch or between two, methods of medbolt-noisy that remember samples do as if never stopped."""

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ObjectiveCallback, RandomState
from medbolt.noisy import (
    DISC,
    ConfidentWeighting,
    CoTeaching,
    EarlyLearningRegularization,
    EarlyLearningRegularizationPlus,
    LabelQuality,
    MixUp,
    SelfEnsembleLabelCorrection,
    SparseOverParameterization,
    TRevision,
    VolMinNet,
)

METHODS: dict[str, Any] = {
    "mixup": lambda: [MixUp()],
    "elr": lambda: [EarlyLearningRegularization()],
    "elr over mixup": lambda: [MixUp(), EarlyLearningRegularization()],
    "elr+": lambda: [EarlyLearningRegularizationPlus(average_decay=0.9, average_ramp_steps=0)],
    "selc": lambda: [SelfEnsembleLabelCorrection(1)],
    "sop+": lambda: [SparseOverParameterization(100, 1000, consistency=0.9, balance=0.1)],
    "disc": lambda: [DISC(1, sigma=0.1, momentum=0.5)],
    "disc, share": lambda: [DISC(1, sigma=0.1, momentum=0.5, share=0.5)],
}
"""Each method makes decisions in an epoch by what it knew from the one before."""
MORE: dict[str, Any] = {
    "volminnet": lambda: [VolMinNet()],
    "t-revision": lambda: [TRevision(1, 2, outlier_percentile=None)],
    "co-teaching": lambda: [CoTeaching(0.4, gradual_epochs=2)],
    "label quality": lambda: [LabelQuality(), ConfidentWeighting(start_epoch=1)],
}


class WithoutMomentum(ToyClassifier):
    """Whose optimizer remembers nothing, for each fit makes a new one."""

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def fit(make: Any, folder: Any, path: Any = None) -> tuple[ToyClassifier, list[ObjectiveCallback]]:
    module, callbacks = ToyClassifier(), make()
    torch.manual_seed(0 if path is None else 99)  # a new process finds its generators elsewhere
    saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
    run = trainer(RandomState(7), *callbacks, saving, epochs=4, enable_checkpointing=True)
    run.fit(module, datamodule=ToyImages(), ckpt_path=path, weights_only=True)
    return module, callbacks


@pytest.mark.parametrize("name", METHODS)
def test_resumed_is_uninterrupted_bit_for_bit(name, tmp_path):
    whole, callbacks = fit(METHODS[name], tmp_path / "whole")
    for step in (8, 12):  # of six batches an epoch
        module, resumed = fit(METHODS[name], tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")
        assert module.seen == whole.seen[step:]
        assert torch.equal(weights(module), weights(whole))
        for again, once in zip(resumed, callbacks, strict=True):
            compare(again, once)


def weights_of_a_fit(make: Any, *epochs: int) -> Tensor:
    """Return what one trainer makes of a module in fits that go on from each other."""
    module = WithoutMomentum()
    torch.manual_seed(0)
    run = trainer(RandomState(7), *make(), epochs=epochs[0])
    data = ToyImages()
    for last in epochs:
        run.fit_loop.max_epochs = last
        run.fit(module, datamodule=data)
    return weights(module)


@pytest.mark.parametrize("name", [*METHODS, *MORE])
def test_a_fit_that_goes_on_is_uninterrupted_bit_for_bit(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make = (METHODS | MORE)[name]
    assert torch.equal(weights_of_a_fit(make, 2, 4), weights_of_a_fit(make, 4))


def compare(first: ObjectiveCallback, second: ObjectiveCallback) -> None:
    if second.memory is not None:
        assert first.memory is not None
        torch.testing.assert_close(first.memory.fields, second.memory.fields, rtol=0, atol=0)
    networks: list[list[nn.Module]] = [getattr(c, "averages", []) for c in (first, second)]
    for again, once in zip(*networks, strict=True):
        assert torch.equal(weights(again), weights(once))

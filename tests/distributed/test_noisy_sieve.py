"""CORES2 on two processes: the sieve's mean and its label frequencies are those of one, also after a resume."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.noisy import CriterionEpoch, PeerSieveLoss

pytestmark = pytest.mark.ddp


class Unlike(ToyImages):
    """Labels of unequal frequency."""

    def load(self, split):
        dataset = super().load(split)
        dataset.targets.copy_(torch.arange(len(dataset)) % 7 % 3)
        return dataset


def fitted(folder: Path, path: Path | None = None) -> dict[str, Any]:
    module = ToyClassifier(lr=0.02)
    torch.manual_seed(0)
    module.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    module.criterion = PeerSieveLoss(beta=0.5, warmup_epochs=0, ramp_epochs=1, sieve_epoch=1)
    saves = ModelCheckpoint(folder, "{step}", every_n_train_steps=5, save_top_k=-1)  # of three steps an epoch
    data = Unlike(batch_size=8 // trainer().world_size)
    run = trainer(RandomState(1), CriterionEpoch(), saves, epochs=4, enable_checkpointing=True)
    run.fit(module, datamodule=data, ckpt_path=path, weights_only=True)
    total = run.strategy.reduce(module.criterion.passed.clone(), reduce_op="sum")
    return {"weights": weights(module), "estimated": module.criterion.estimated, "passed": total}


def whole_and_resumed(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    whole = fitted(folder)
    return whole, fitted(folder / "resumed", folder / "step=5.ckpt")  # inside the first sieved epoch


def test_two_processes_sieve_as_one_does_and_go_on_from_the_middle_of_an_epoch(tmp_path):
    ((one, _),) = run(whole_and_resumed, tmp_path / "one", processes=1)
    assert 0 < one["passed"].sum() < 24
    for whole, resumed in run(whole_and_resumed, tmp_path / "two"):
        torch.testing.assert_close(whole, one, rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(resumed, whole, rtol=0, atol=0)

"""A run that was killed and resumed from its last checkpoint is, bit for bit, the run that was not."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from processes import attempt, run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ObjectiveCallback, RandomState, training_pass

EPOCHS, BATCHES, KILLED = 3, 8, (1, 6)
"""The run dies in batch 6 of 8 of epoch 1 of 3."""


class Method(ObjectiveCallback):
    """Pulls predictions towards remembered ones and trains a peer network: every kind of state a method may keep."""

    def __init__(self, killed: tuple[int, int] | None) -> None:
        super().__init__()
        self.killed = killed

    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.remember(trainer, probability=torch.zeros(3), visits=torch.tensor(0))
            torch.manual_seed(5)
            self.peer = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(192, 3))
            self.attach(pl_module, "peer", self.peer)

    def begin_epoch(self, trainer, pl_module):
        def evaluate(batch):
            return {"probability": pl_module.model(batch["image"]).softmax(1)}

        seen = training_pass(trainer, pl_module, evaluate, probability=torch.zeros(3))
        self.memory["probability"].lerp_(seen["probability"], 0.5)

    def objective(self, step):
        if self.killed == (step.module.current_epoch, step.module.trainer.fit_loop.batch_idx):
            os.kill(os.getpid(), signal.SIGKILL)
        remembered = self.memory.read(step.index, "probability")
        self.memory.write(
            step.index,
            probability=0.7 * remembered + 0.3 * step.logits.softmax(1),
            visits=self.memory.read(step.index, "visits") + 1,
        )
        peer = step.loss(logits=self.peer(*step.inputs))
        return step.loss() + peer - 2 * (remembered * step.logits.log_softmax(1)).sum(1)


SAVES: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {
    # how checkpoints are saved; options of trainer and data; batches of the whole run before the last checkpoint
    "epoch end": ({}, {}, 8),
    "steps": ({"every_n_train_steps": 3}, {}, 12),
    "steps, workers": ({"every_n_train_steps": 3}, {"num_workers": 2}, 12),
    "last batch": ({"every_n_train_steps": 8}, {}, 8),
    "accumulated": ({"every_n_train_steps": 1}, {"accumulate_grad_batches": 2}, 14),
    "validation end": (
        {"save_on_train_epoch_end": False},
        {"val_check_interval": 4, "accumulate_grad_batches": 2, "num_workers": 2},
        12,
    ),
    "validation end, last batch": ({"save_on_train_epoch_end": False}, {}, 8),
}


def fit(folder: Path, name: str, killed: tuple[int, int] | None = None, path: Path | None = None) -> dict[str, Any]:
    saves, options, _ = SAVES[name]
    options = dict(options)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    data = ToyImages({"train": 4 * BATCHES}, batch_size=4 // world, num_workers=options.pop("num_workers", 0))
    module, method = ToyClassifier(), Method(killed)
    torch.manual_seed(0 if path is None else 99)  # a new process finds its generators elsewhere
    saving = ModelCheckpoint(folder, save_last=True, **saves)
    run = trainer(RandomState(7), method, saving, epochs=EPOCHS, enable_checkpointing=True, **options)
    run.fit(module, datamodule=data, ckpt_path=path)
    return {
        "weights": weights(module),
        "peer": weights(method.peer),
        "memory": dict(method.memory.fields),
        "seen": module.seen,
        "metrics": {key: float(value) for key, value in run.callback_metrics.items()},
    }


def whole_and_resumed(folder: Path, name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    return fit(folder / "whole", name), fit(folder / "killed", name, path=folder / "killed/last.ckpt")


CASES = [(name, 1) for name in SAVES] + [(name, 2) for name in ("epoch end", "steps, workers", "accumulated")]


@pytest.mark.ddp
@pytest.mark.slow
@pytest.mark.parametrize(("name", "processes"), CASES)
def test_a_killed_run_is_resumed_bit_for_bit(name, processes, tmp_path):
    killed = attempt(fit, tmp_path / "killed", name, KILLED, processes=processes)
    assert [outcome.exitcode for outcome in killed] == [-signal.SIGKILL] * processes
    for whole, resumed in run(whole_and_resumed, tmp_path, name, processes=processes):
        before = SAVES[name][2]
        assert len(whole["seen"]) == EPOCHS * BATCHES
        assert resumed["seen"] == whole["seen"][before:]
        for found in ("weights", "peer"):
            assert torch.equal(resumed[found], whole[found])
        torch.testing.assert_close(resumed["memory"], whole["memory"], rtol=0, atol=0)
        assert resumed["memory"]["visits"].tolist() == [EPOCHS] * 4 * BATCHES
        assert resumed["metrics"] == whole["metrics"]


def two_lives(folder: Path, name: str) -> None:
    """Die twice: the second life resumes from the first one's checkpoint and dies an epoch later."""
    fit(folder, name, killed=(2, 3), path=folder / "last.ckpt")


def test_a_run_may_be_killed_again(tmp_path):
    attempt(fit, tmp_path / "killed", "steps", KILLED, processes=1)
    (second,) = attempt(two_lives, tmp_path / "killed", "steps", processes=1)
    assert second.exitcode == -signal.SIGKILL
    ((whole, resumed),) = run(whole_and_resumed, tmp_path, "steps", processes=1)
    assert resumed["seen"] == whole["seen"][18:]
    assert torch.equal(resumed["weights"], whole["weights"])


def test_the_last_checkpoint_loads_without_pickled_code(tmp_path):
    fit(tmp_path, "epoch end")
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert not [name for name in saved["state_dict"] if "peer" in name]
    assert any("attached" in state for state in saved["callbacks"].values())

"""Transition matrices and masked gradients on two processes are those of one."""

from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.noisy import CDR, NoisyLabels, SymmetricNoise, TRevision, VolMinNet

pytestmark = pytest.mark.ddp


class Gradients(Callback):
    """Keeps the gradients that a step was made with."""

    def on_before_optimizer_step(self, trainer, pl_module, optimizer):
        self.last = torch.cat([p.grad.flatten() for p in pl_module.model.parameters()])


def fitted(*callbacks: Callback) -> dict[str, Any]:
    module = ToyClassifier()
    torch.manual_seed(0)
    # without batch norm and dropout, which differ between processes
    module.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    fit = trainer(*callbacks, epochs=4)
    fit.fit(module, datamodule=NoisyLabels(ToyImages(batch_size=8 // fit.world_size), SymmetricNoise(0.3)))
    logged = {name: float(value) for name, value in fit.callback_metrics.items() if name.startswith("lnl")}
    return {"weights": weights(module), "logged": logged}


def everything() -> dict[str, Any]:
    volume = VolMinNet(transition_lr=3.0)
    revision = TRevision(1, 2, revision_lr=0.5)
    masked = Gradients()
    return {
        "volminnet": fitted(volume) | {"transition": volume.transition},
        "t-revision": fitted(revision) | {"transition": revision.transition},
        "cdr": fitted(CDR(0.4, gradual_epochs=2), masked) | {"gradients": masked.last},
        "cdr by tensor": fitted(CDR(0.4, gradual_epochs=2, per_tensor=True), masked),
    }


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


@pytest.mark.parametrize("name", ["volminnet", "t-revision", "cdr", "cdr by tensor"])
def test_two_processes_learn_what_one_does(results, name):
    one, two = results
    torch.testing.assert_close(two[0][name], two[1][name], rtol=0, atol=0)
    torch.testing.assert_close(two[0][name], one[name], rtol=1e-4, atol=1e-5)


def test_the_same_weights_are_masked_on_all_processes(results):
    one, two = results
    masks = [found["cdr"]["gradients"] == 0 for found in (one, *two)]
    assert masks[0].any()
    assert all(torch.equal(mask, masks[0]) for mask in masks[1:])


@pytest.mark.parametrize("name", ["volminnet", "t-revision"])
def test_the_error_of_the_matrix_is_logged(results, name):
    one, _ = results
    assert list(one[name]["logged"]) == ["lnl/T_error"]

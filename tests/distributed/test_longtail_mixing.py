"""ConMix on two processes: classes are mixed over both, so they learn what one learns from their batches together."""

import pytest
import torch
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.longtail import ConMix

pytestmark = pytest.mark.ddp


class Paler(nn.Module):
    def forward(self, images):
        return images / 2


def fitted(weight):
    module = ToyClassifier(lr=0.05)
    torch.manual_seed(0)
    module.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(144, 3))
    data = ToyImages(batch_size=4 // trainer().world_size)  # two samples a process: not every class
    callback = ConMix(weight, strong=Paler(), features="model.2")
    trainer(RandomState(1), callback, epochs=2, limit_val_batches=0).fit(module, datamodule=data)
    return weights(module)


def test_two_processes_learn_what_one_does():
    ranks = run(fitted, 1.0)
    (one,) = run(fitted, 1.0, processes=1)
    (plain,) = run(fitted, 0.0, processes=1)
    assert torch.equal(*ranks)
    torch.testing.assert_close(ranks[0], one, rtol=1e-4, atol=1e-6)
    assert (one - plain).abs().max() > 1e-3

"""Sharpness-aware minimisation on two processes is what one process does with their batches together."""

import pytest
import torch
from lightning.pytorch import LightningModule
from processes import run
from torch import nn
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.longtail import SharpnessAwareMinimization

pytestmark = pytest.mark.ddp


class Plain(LightningModule):
    """A network without randomness or statistics, on batches that two processes halve."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def training_step(self, batch, batch_idx):
        x, y = batch
        return nn.functional.cross_entropy(self.model(x), y)

    def train_dataloader(self):
        generator = torch.Generator().manual_seed(1)
        data = TensorDataset(torch.randn(40, 4, generator=generator), torch.arange(40) % 3)
        world, rank = self.trainer.world_size, self.trainer.global_rank
        sampler = DistributedSampler(data, world, rank, shuffle=False)
        return DataLoader(data, batch_size=8 // world, sampler=sampler)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.3, momentum=0.9)


def fit(rho, accumulate):
    module = Plain()
    options = {"accumulate_grad_batches": accumulate, "gradient_clip_val": 0.2}
    trainer(SharpnessAwareMinimization(rho), epochs=2, **options).fit(module)
    return weights(module)


def fit_with_statistics(rho):
    module = ToyClassifier()
    callbacks = [] if rho is None else [SharpnessAwareMinimization(rho)]
    trainer(*callbacks, RandomState(3), epochs=2).fit(module, datamodule=ToyImages())
    return weights(module)


@pytest.mark.parametrize("accumulate", [1, 2])
def test_two_processes_do_what_one_does(accumulate):
    ranks = run(fit, 0.5, accumulate)
    (one,) = run(fit, 0.5, accumulate, processes=1)
    assert torch.equal(*ranks)
    torch.testing.assert_close(ranks[0], one, rtol=1e-5, atol=1e-6)


def test_with_radius_zero_it_is_plain_training_on_two_processes():
    with_callback, without = run(fit_with_statistics, 0.0), run(fit_with_statistics, None)
    for rank in range(2):
        assert torch.equal(with_callback[rank], without[rank])

import copy

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import Callback
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset
from toys import trainer, weights

from medbolt.core import UserError
from medbolt.noisy import CoTeaching, GeneralizedCrossEntropyLoss

FIRST = torch.tensor([[0.0, 9.0], [0.0, 1.0], [0.0, 2.0], [5.0, 0.0]])
SECOND = torch.tensor([[0.0, 1.0], [0.0, 5.0], [0.0, 4.0], [9.0, 0.0]])
TARGET = torch.tensor([1, 1, 1, 0])


def test_each_network_learns_from_the_samples_the_other_would_keep(step_of, fixed):
    callback = CoTeaching(0.5, peer=fixed(SECOND))
    first = FIRST.clone().requires_grad_()
    loss = callback.objective(step_of(first, TARGET)).mean()
    loss.backward()
    one, two = (cross_entropy(logits, TARGET, reduction="none") for logits in (FIRST, SECOND))
    assert loss.item() == pytest.approx(float(one[[1, 3]].mean() + two[[0, 3]].mean()))
    assert (first.grad.abs().sum(1) > 0).tolist() == [False, True, False, True]
    assert (callback.peer.logits.grad.abs().sum(1) > 0).tolist() == [True, False, False, True]
    assert callback.selection.kept.tolist() == [False, True, False, True]  # what the module's network learns from


class Steps(Callback):
    """Keeps the batches of a run and both networks as they were before it."""

    def __init__(self, method):
        self.method, self.batches = method, []

    def on_train_start(self, trainer, pl_module):
        self.start = copy.deepcopy(pl_module.model), copy.deepcopy(self.method.peer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.batches.append((trainer.current_epoch, batch["image"], batch["target"]))


def test_one_optimizer_takes_the_steps_of_two_bit_for_bit(fit_moons):
    method = CoTeaching(0.4, gradual_epochs=3)
    steps = Steps(method)
    module, _ = fit_moons(method, steps, epochs=7)
    assert len(steps.batches) == 56
    first, second = (copy.deepcopy(network) for network in steps.start)
    first_adam, second_adam = (torch.optim.Adam(network.parameters(), 0.01) for network in (first, second))
    for epoch, x, y in steps.batches:
        keep = int((1 - 0.4 * min(epoch / 3, 1)) * len(y))
        one, two = (cross_entropy(network(x), y, reduction="none") for network in (first, second))
        easy_for_one, easy_for_two = (losses.detach().argsort()[:keep] for losses in (one, two))
        for adam, losses in ((first_adam, one[easy_for_two]), (second_adam, two[easy_for_one])):
            adam.zero_grad()
            losses.mean().backward()
            adam.step()
    assert not torch.equal(weights(first), weights(steps.start[0]))
    assert torch.equal(weights(module.model), weights(first))
    assert torch.equal(weights(method.peer), weights(second))


def test_ranks_by_the_module_s_own_criterion(fit_moons):
    module, _ = fit_moons(epochs=0)
    module.criterion = GeneralizedCrossEntropyLoss(0.7)
    method = CoTeaching(0.4)
    steps = Steps(method)
    fit_moons(method, steps, epochs=1, module=module)
    assert not torch.equal(weights(module.model), weights(steps.start[0]))
    assert not torch.equal(weights(method.peer), weights(steps.start[1]))


class Foreign(LightningModule):
    """Somebody's module: tuple batches, a functional loss, a network of another name."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Linear(4, 3)

    def training_step(self, batch, batch_idx):
        x, y = batch
        return cross_entropy(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class ForeignData(LightningDataModule):
    def train_dataloader(self):
        generator = torch.Generator().manual_seed(0)
        x, y = torch.randn(16, 4, generator=generator), torch.arange(16) % 3
        return DataLoader(TensorDataset(x, y), batch_size=8)


def test_works_on_a_foreign_module_and_leaves_no_trace():
    module, method = Foreign(), CoTeaching(0.2, criterion="functional", network="net")
    steps = Steps(method)
    steps.on_train_start = steps.on_train_batch_start = lambda *arguments: None
    names = list(module.state_dict())
    before = weights(module)
    trainer(method, epochs=2).fit(module, datamodule=ForeignData())
    assert list(module.state_dict()) == names
    assert not hasattr(module, "peer_network")
    assert not torch.equal(weights(module), before)
    assert method.selection.index is None  # the batches do not tell, and nothing needs to know
    with pytest.raises(UserError, match="no network 'model' in Foreign"):
        trainer(CoTeaching(0.2, criterion="functional")).fit(Foreign(), datamodule=ForeignData())


@pytest.mark.parametrize("size", [1, 2])
def test_small_batches_soft_targets_and_bfloat16(step_of, fixed, size):
    logits = torch.randn(size, 2, dtype=torch.bfloat16, requires_grad=True)
    callback = CoTeaching(0.5, peer=fixed(torch.full((size, 2), 300.0)))
    soft = torch.full((size, 2), 0.5, dtype=torch.bfloat16)
    callback.objective(step_of(logits, soft)).mean().backward()
    assert logits.grad.isfinite().all()
    assert callback.peer.logits.grad.isfinite().all()


def test_one_logit_for_two_classes(fixed, step_of):
    """As of a binary task: the network's logits are (B, 1), the criterion's (B,)."""
    logits = torch.zeros(4, requires_grad=True)
    callback = CoTeaching(0.5, peer=fixed(torch.ones(4, 1)))
    assert callback.peer_logits(step_of(logits, TARGET)).shape == (4,)


def test_beats_cross_entropy_under_forty_percent_noise(accuracy, cross_entropy_accuracy):
    assert accuracy(CoTeaching(0.4)) > cross_entropy_accuracy + 0.1

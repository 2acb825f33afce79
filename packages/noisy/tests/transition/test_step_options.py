from copy import deepcopy

import pytest
import torch
from lightning.pytorch.callbacks import OnExceptionCheckpoint
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, LinearLR, MultiStepLR, OneCycleLR, SequentialLR
from toys import ToyClassifier, ToyImages, trainer

from medbolt.noisy import TRevision, VolMinNet
from medbolt.noisy.transition.step_options import StepOptions

OPTIMIZERS = {
    "sgd": lambda groups: SGD(groups, 0.1, momentum=0.9),
    "adam": lambda groups: Adam(groups, 0.1),
    "adamw": lambda groups: AdamW(groups, 0.1),
}


def parameters() -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(3, generator=generator)) for _ in range(3)]


def train(optimizer: Optimizer, values: list[nn.Parameter], steps: int = 5, between=lambda: None) -> torch.Tensor:
    for step in range(steps):
        optimizer.zero_grad()
        loss = sum(((i + 1) * value * value.cos() + step * value).sum() for i, value in enumerate(values))
        loss.backward()
        optimizer.step()
        between()
    return torch.cat([value.detach() for value in values])


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_equals_groups_of_their_own(make):
    a, b, c = parameters()
    groups = [
        {"params": [a], "weight_decay": 0.3, "lr": 0.05},
        {"params": [b], "weight_decay": 0.0, "lr": 0.3},
        {"params": [c], "weight_decay": 0.3, "lr": 0.05},
    ]
    expected = train(make(groups), [a, b, c])
    a, b, c = parameters()
    optimizer = make([{"params": [a, b, c], "weight_decay": 0.3}])
    StepOptions([optimizer], [b], lr=3.0, rest_lr=0.5)
    torch.testing.assert_close(train(optimizer, [a, b, c]), expected)


def test_nobody_sees_it_between_steps():
    values = parameters()
    optimizer = OPTIMIZERS["sgd"]([{"params": values, "weight_decay": 0.3}])
    before = deepcopy({k: v for k, v in optimizer.param_groups[0].items() if k != "params"})
    StepOptions([optimizer], values[1:2], lr=3.0, rest_lr=0.5)

    def look():
        (group,) = optimizer.param_groups
        assert {k: v for k, v in group.items() if k != "params"} == before
        assert [id(p) for p in group["params"]] == [id(p) for p in values]

    train(optimizer, values, between=look)
    assert [len(group["params"]) for group in optimizer.state_dict()["param_groups"]] == [3]


SCHEDULERS = {
    "steps": lambda optimizer: MultiStepLR(optimizer, [2, 4]),
    "cosine": lambda optimizer: CosineAnnealingLR(optimizer, 5),
    "lambda": lambda optimizer: LambdaLR(optimizer, lambda step: 0.5**step),
    "one cycle": lambda optimizer: OneCycleLR(optimizer, 0.1, total_steps=6),
    "warm-up": lambda optimizer: SequentialLR(
        optimizer, [LinearLR(optimizer, 0.1, total_iters=2), CosineAnnealingLR(optimizer, 5)], [2]
    ),
}


@pytest.mark.filterwarnings("ignore:.*epoch parameter.*")
@pytest.mark.parametrize("schedule", SCHEDULERS.values(), ids=SCHEDULERS)
def test_any_scheduler_drives_the_rate_it_is_a_factor_of(schedule):
    values = parameters()
    plain = SGD(values, 0.1)
    rates, scheduler = [], schedule(plain)

    def note():
        scheduler.step()
        rates.append(plain.param_groups[0]["lr"])

    train(plain, values, between=note)
    values = parameters()
    optimizer = SGD(values, 0.1, weight_decay=0.3)
    StepOptions([optimizer], values[:1], lr=7.0)
    seen, scheduler = [], schedule(optimizer)

    def compare():
        scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])

    train(optimizer, values, between=compare)
    assert seen == rates


def test_a_step_that_failed_leaves_no_trace_after_the_next_or_removal():
    values = parameters()
    optimizer = SGD(values, 0.1, weight_decay=0.3)
    options = StepOptions([optimizer], values[:1], lr=2.0)

    def fails():
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        optimizer.step(fails)
    assert len(optimizer.param_groups) == 2
    options.remove()
    assert len(optimizer.param_groups) == 1
    assert len(optimizer.param_groups[0]["params"]) == 3
    train(optimizer, values, steps=1, between=lambda: None)
    assert not optimizer._optimizer_step_pre_hooks


def test_lbfgs_which_knows_one_group_only_is_left_alone():
    values = parameters()
    StepOptions([optimizer := torch.optim.LBFGS(values)], values[:1])
    optimizer.step(lambda: sum((value**2).sum() for value in values))
    assert len(optimizer.param_groups) == 1


class Fails(ToyClassifier):
    """Fails in the second epoch, inside of the optimizer's step."""

    optimizer: Optimizer

    def training_step(self, batch, batch_idx):
        if self.current_epoch == 1:
            raise RuntimeError("out of memory")
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self):
        self.optimizer = SGD(self.parameters(), 0.1, weight_decay=0.3)
        return self.optimizer


@pytest.mark.parametrize("make", [lambda: VolMinNet(), lambda: TRevision(1, 1, revision_lr=0.5)])
def test_a_checkpoint_of_a_failed_run_resumes_and_the_optimizer_is_as_it_was(make, tmp_path):
    module, saving = Fails(), OnExceptionCheckpoint(tmp_path, "failed")
    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(make(), saving, epochs=2, enable_checkpointing=True).fit(module, datamodule=ToyImages())
    assert not module.optimizer._optimizer_step_pre_hooks
    (group,) = module.optimizer.param_groups
    assert group["lr"] == 0.1
    saved = torch.load(tmp_path / "failed.ckpt", weights_only=True)
    assert len(saved["optimizer_states"][0]["param_groups"]) == 1
    healthy = ToyClassifier()
    trainer(make(), epochs=3).fit(healthy, datamodule=ToyImages(), ckpt_path=tmp_path / "failed.ckpt")
    assert healthy.seen

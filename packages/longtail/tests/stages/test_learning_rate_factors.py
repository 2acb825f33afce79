from copy import deepcopy

import pytest
import torch
from torch import nn
from toys import ToyImages, trainer

from medbolt.core import RandomState, UserError
from medbolt.longtail import TwoStageTraining
from medbolt.longtail.stages.learning_rate_factors import LearningRateFactors

OPTIMIZERS = {
    "SGD": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "Adam": lambda p: torch.optim.Adam(p, 0.01, weight_decay=0.1, amsgrad=True),
    "AdamW": lambda p: torch.optim.AdamW(p, 0.01, weight_decay=0.5),
    "RMSprop": lambda p: torch.optim.RMSprop(p, 0.01, momentum=0.5),
}


def train(network, optimizer):
    """Take twenty steps, the learning rate on a cosine."""
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 20)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.randn(8, 3, generator=generator, dtype=torch.float64)
        optimizer.zero_grad()
        network(x).square().mean().backward()
        optimizer.step()
        scheduler.step()
    return [p.detach() for p in network.parameters()]


@pytest.fixture
def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).double()


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_equals_a_parameter_group_with_that_learning_rate(network, make):
    grouped = deepcopy(network)
    one = make(network.parameters())
    factors = LearningRateFactors(network, {"0": 0.5, "1.bias": 0.05})
    factors.attach([one])
    lr = one.param_groups[0]["lr"]
    groups = [
        {"params": [grouped[1].weight]},
        {"params": [*grouped[0].parameters()], "lr": 0.5 * lr},
        {"params": [grouped[1].bias], "lr": 0.05 * lr},
    ]
    torch.testing.assert_close(train(network, one), train(grouped, make(groups)), rtol=1e-9, atol=1e-12)


def test_without_it_and_after_its_end_steps_are_the_optimizer_s(network):
    plain = deepcopy(network)
    optimizer = OPTIMIZERS["AdamW"](network.parameters())
    factors = LearningRateFactors(network, {"1": 0.1})
    factors.attach([optimizer])
    factors.remove()
    expected = train(plain, OPTIMIZERS["AdamW"](plain.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(train(network, optimizer), expected, strict=True))


def test_the_later_of_two_that_overlap_holds_and_several_optimizers_may_share(network):
    factors = LearningRateFactors(network, {"": 0.5, "1.bias": 0.1})
    optimizers = [torch.optim.SGD(part.parameters(), 1.0) for part in network]
    factors.attach(optimizers)
    before = [p.detach().clone() for p in network.parameters()]
    for p in network.parameters():
        p.grad = torch.ones_like(p)
    for optimizer in optimizers:
        optimizer.step()
    moved = [float((b - p).detach().mean()) for b, p in zip(before, network.parameters(), strict=True)]
    assert moved == pytest.approx([0.5, 0.5, 0.5, 0.1])


def test_in_a_second_stage_with_a_schedule_the_part_moves_by_its_share(decaying):
    class OneStep(decaying):
        def configure_optimizers(self):
            optimizer = torch.optim.SGD(self.parameters(), 0.1)
            return [optimizer], [torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)]

    def fit(factors):
        module = OneStep()
        before = deepcopy(module.state_dict())
        stage = TwoStageTraining(trainable=["5"], learning_rate_factors=factors)
        trainer(RandomState(), stage, epochs=1, limit_train_batches=1).fit(module, datamodule=ToyImages())
        return {name: value - before[name] for name, value in module.state_dict().items() if "5" in name}

    whole, part = fit(None), fit({"5.weight": 0.2})
    torch.testing.assert_close(part["model.5.weight"], 0.2 * whole["model.5.weight"], rtol=1e-3, atol=1e-7)
    assert torch.equal(part["model.5.bias"], whole["model.5.bias"])


def test_after_fit_the_same_optimizer_takes_whole_steps_again(decaying):
    module, stage = decaying(), TwoStageTraining(trainable=["5"], learning_rate_factors={"5": 0.1})
    optimizer = torch.optim.SGD(module.parameters(), 1.0)
    module.configure_optimizers = lambda: optimizer
    trainer(stage).fit(module, datamodule=ToyImages())
    before = module.model[5].bias.detach().clone()
    module.model[5].bias.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(before - module.model[5].bias, torch.ones(3))


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"head": 0.1}, "no part learning_rate_factors='head'; it has '0', '1'"),
        ({"0": 0.1}, "learning_rate_factors has '0' of Sequential, but nothing of it trains"),
    ],
)
def test_parts_that_do_not_train_are_named(decaying, factors, message):
    stage = TwoStageTraining(trainable=["5"], learning_rate_factors=factors)
    with pytest.raises(UserError, match=message):
        trainer(stage).fit(decaying(), datamodule=ToyImages())


def test_parameters_that_no_optimizer_holds_are_refused(network):
    with pytest.raises(UserError, match="parameters that no optimizer holds"):
        LearningRateFactors(network, {"1": 0.1}).attach([torch.optim.SGD(network[0].parameters())])


def test_factors_are_positive():
    with pytest.raises(ValueError, match="learning_rate_factors must be positive"):
        TwoStageTraining(learning_rate_factors={"head": 0.0})

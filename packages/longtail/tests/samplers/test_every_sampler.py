"""What holds for every sampler: order by (seed, epoch), shares of processes, resuming, odd targets."""

import pickle
from itertools import islice

import pytest
import torch

from medbolt.core import ResumableDataLoader, UserError
from medbolt.longtail import (
    ClassBalancedSampler,
    FlexRebalancingSampler,
    ProgressivelyBalancedSampler,
    RepeatFactorSampler,
    ReverseSampler,
    SquareRootSampler,
)

SAMPLERS = [
    ClassBalancedSampler,
    SquareRootSampler,
    ReverseSampler,
    ProgressivelyBalancedSampler,
    RepeatFactorSampler,
    FlexRebalancingSampler,
]
MULTI_LABEL = SAMPLERS[:5]
each = pytest.mark.parametrize("kind", SAMPLERS)


def draws(sampler, epoch=0):
    sampler.set_epoch(epoch)
    return list(sampler)


@each
def test_the_order_is_a_function_of_seed_and_epoch(kind, targets):
    first = draws(kind(targets, seed=3), epoch=2)
    assert first == draws(kind(targets, seed=3), epoch=2)
    assert first != draws(kind(targets, seed=3), epoch=3)
    assert first != draws(kind(targets, seed=4), epoch=2)
    torch.rand(1)  # nor of torch's own generator
    assert first == draws(kind(targets, seed=3), epoch=2)


@each
@pytest.mark.parametrize("tail", ["uneven", "repeat", "drop"])
def test_two_processes_draw_together_what_one_draws(kind, tail, targets):
    one = draws(kind(targets[:4999]), epoch=1)
    ranks = [draws(kind(targets[:4999], 0, 2, rank, tail), epoch=1) for rank in range(2)]
    together = [draw for pair in zip(*ranks, strict=False) for draw in pair]
    both = min(len(together), len(one))
    assert together[:both] == one[:both]
    assert len(one) - both <= 1
    seeds = [{draw.seed for draw in rank} for rank in ranks]
    assert not seeds[0] & seeds[1]  # no draw is done twice
    assert tail == "uneven" or len(ranks[0]) == len(ranks[1])


@each
def test_its_length_is_that_of_what_it_yields(kind, targets):
    for rank in range(3):
        sampler = kind(targets, 0, 3, rank, "uneven")
        assert len(draws(sampler, epoch=1)) == len(sampler)


@each
def test_a_resumed_epoch_goes_on_in_the_same_order(kind, targets):
    data = torch.arange(len(targets))

    def loader():
        loader = ResumableDataLoader(data, batch_size=64, sampler=kind(targets))
        loader.sampler.set_epoch(1)
        return loader

    whole = torch.cat(list(loader()))
    interrupted = loader()
    begun = list(islice(interrupted, 5))
    resumed = loader()
    resumed.load_state_dict(interrupted.state_dict())
    assert torch.equal(torch.cat([*begun, *resumed]), whole)


@each
def test_travels_to_another_process(kind, targets):
    sampler = kind(targets, seed=1)
    assert draws(pickle.loads(pickle.dumps(sampler))) == draws(sampler)


@each
def test_classes_without_samples_are_never_drawn(kind):
    targets = torch.tensor([0] * 30 + [2] * 3 + [5])
    drawn = {int(targets[i]) for epoch in range(30) for i in draws(kind(targets), epoch)}
    assert drawn == {0, 2, 5}


@each
def test_a_single_sample(kind):
    assert draws(kind(torch.tensor([3]))) == [0]


@pytest.mark.parametrize("kind", [k for k in SAMPLERS if k is not RepeatFactorSampler])
def test_no_samples_are_refused(kind):
    with pytest.raises(UserError, match="no training samples to draw from"):
        kind(torch.zeros(0, dtype=torch.int64))


@pytest.mark.parametrize("kind", MULTI_LABEL)
def test_every_sample_of_multi_label_data_can_be_drawn(kind, labels):
    sampler = kind(labels[::50])
    seen = {int(i) for epoch in range(60) for i in draws(sampler, epoch)}
    assert seen == set(range(100))

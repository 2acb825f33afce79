import copy
import pickle

import pytest
import torch
from torch.utils.data import DataLoader

from medbolt.core.data.sampler import Draw, EpochSampler


def shards(size, processes, tail, epoch=0, **options):
    samplers = [
        EpochSampler(range(size), num_replicas=processes, rank=r, tail=tail, **options) for r in range(processes)
    ]
    for sampler in samplers:
        sampler.set_epoch(epoch)
    return [list(sampler) for sampler in samplers]


def interleaved(parts):
    """The draws in the order in which the processes take them together."""
    longest = max(map(len, parts))
    return [part[i] for i in range(longest) for part in parts if i < len(part)]


def test_a_draw_is_its_position_and_carries_a_seed():
    draw = Draw(4, seed=9)
    assert draw == 4
    assert [10, 11, 12, 13, 14][draw] == 14
    assert torch.arange(5)[draw] == 4
    for copied in (pickle.loads(pickle.dumps(draw)), copy.deepcopy(draw)):
        assert (copied, copied.seed) == (4, 9)


def pairs(positions):
    return [(int(position), position.seed) for position in positions]


class Seeds:
    """A data set that shows what it is asked for."""

    def __len__(self):
        return 7

    def __getitem__(self, position):
        return position, position.seed


def test_draws_travel_to_workers():
    def loaded(workers):
        return list(DataLoader(Seeds(), 3, sampler=EpochSampler(Seeds()), num_workers=workers, collate_fn=list))

    assert loaded(2) == loaded(0)
    assert [pair for batch in loaded(0) for pair in batch] == pairs(EpochSampler(Seeds()))


@pytest.mark.parametrize("processes", [2, 3, 4])
def test_processes_share_the_order_and_the_seeds_of_one(processes):
    (whole,) = shards(23, 1, "uneven", epoch=3, seed=5)
    assert pairs(interleaved(shards(23, processes, "uneven", epoch=3, seed=5))) == pairs(whole)
    assert sorted(whole) == list(range(23))


@pytest.mark.parametrize(("tail", "lengths"), [("repeat", [4, 4, 4]), ("drop", [3, 3, 3]), ("uneven", [4, 4, 3])])
def test_tails(tail, lengths):
    parts = shards(11, 3, tail, shuffle=False)
    assert [len(part) for part in parts] == lengths
    samplers = [EpochSampler(range(11), num_replicas=3, rank=r, tail=tail) for r in range(3)]
    assert [len(sampler) for sampler in samplers] == lengths
    expected = {"repeat": [*range(11), 0], "drop": list(range(9)), "uneven": list(range(11))}
    assert interleaved(parts) == expected[tail]


@pytest.mark.parametrize(
    ("tail", "parts"), [("repeat", [[0], [0], [0]]), ("drop", [[], [], []]), ("uneven", [[0], [], []])]
)
def test_more_processes_than_samples(tail, parts):
    assert shards(1, 3, tail, shuffle=False) == parts


def test_a_sample_that_fills_the_tail_is_drawn_with_another_seed():
    parts = shards(3, 2, "repeat", shuffle=False)
    assert [int(draw) for draw in interleaved(parts)] == [0, 1, 2, 0]
    assert parts[0][0].seed != parts[1][1].seed


def test_epochs_differ_and_are_repeatable():
    first, second = shards(50, 1, "drop", epoch=0)[0], shards(50, 1, "drop", epoch=1)[0]
    assert first != second
    assert sorted(first) == sorted(second)
    assert not {d.seed for d in first} & {d.seed for d in second}
    assert pairs(shards(50, 1, "drop", epoch=1)[0]) == pairs(second)
    assert shards(50, 1, "drop", epoch=0, seed=1)[0] != first


def test_unshuffled_draws_differ_between_epochs_in_their_seeds_only():
    first, second = shards(5, 1, "drop", epoch=0, shuffle=False)[0], shards(5, 1, "drop", epoch=1, shuffle=False)[0]
    assert first == second == [0, 1, 2, 3, 4]
    assert [d.seed for d in first] != [d.seed for d in second]


@pytest.mark.parametrize("tail", ["repeat", "drop", "uneven"])
@pytest.mark.parametrize("start", [0, 2, 4, 9])
def test_a_resumed_epoch_yields_the_rest_once(tail, start):
    sampler = EpochSampler(range(11), seed=2, num_replicas=3, rank=1, tail=tail)
    whole = list(sampler)
    sampler.start = start
    assert pairs(sampler) == pairs(whole[start:])
    assert pairs(sampler) == pairs(whole)  # the next iteration is whole again
    assert len(sampler) == len(whole)


def test_a_subclass_may_draw_more_or_fewer_than_there_are():
    class Twice(EpochSampler):
        def order(self):
            return super().order().repeat_interleave(2)

        @property
        def epoch_size(self):
            return 2 * super().epoch_size

    parts = [list(Twice(range(5), num_replicas=2, rank=r, tail="drop")) for r in range(2)]
    assert sorted(interleaved(parts)) == sorted([*range(5), *range(5)])
    assert len({draw.seed for part in parts for draw in part}) == 10


def test_an_unknown_rank_is_refused():
    with pytest.raises(ValueError, match="rank"):
        EpochSampler(range(4), num_replicas=2, rank=2)

import pytest
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper
from torch.utils.data import DataLoader, DistributedSampler, RandomSampler, SequentialSampler

from medbolt.core.errors import UserError
from medbolt.core.predictions.positions import positions

DATA = range(5)


def test_a_plain_loader_goes_in_order():
    assert list(positions(DataLoader(DATA, batch_size=2), processes=2)) == [0, 1, 2, 3, 4]


def test_a_distributed_loader_tells_its_share_with_padding():
    sampler = DistributedSampler(DATA, num_replicas=2, rank=1, shuffle=False)
    assert list(positions(DataLoader(DATA, sampler=sampler), processes=2)) == [1, 3, 0]


def test_a_wrapped_sequential_sampler_is_known_and_a_wrapped_random_one_is_not():
    known, unknown = (
        DistributedSamplerWrapper(inner, num_replicas=2, rank=1, shuffle=False)
        for inner in (SequentialSampler(DATA), RandomSampler(DATA))
    )
    assert list(positions(DataLoader(DATA, sampler=known), processes=2)) == [1, 3, 0]
    with pytest.raises(UserError, match="cannot be known"):
        positions(DataLoader(DATA, sampler=unknown), processes=2)


SHUFFLED = DataLoader(DATA, sampler=DistributedSampler(DATA, num_replicas=2, rank=0, shuffle=True))


@pytest.mark.parametrize("loader", [DataLoader(DATA, shuffle=True), SHUFFLED, [1, 2, 3]])
def test_an_unknown_order_is_numbered_as_it_comes_on_one_process_only(loader):
    numbers = positions(loader, processes=1)
    assert [next(numbers) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UserError, match="yield batches with 'index' and 'id'"):
        positions(loader, processes=2)

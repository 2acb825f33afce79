import numpy as np
import pytest
import torch

from medbolt.core.randomness import derive_seed, derive_seeds, seeded

GAMMA = 0x9E3779B97F4A7C15


def test_one_part_is_a_step_of_splitmix64():
    # first output of the public reference generator started from 1234567
    assert derive_seed(GAMMA ^ 1234567) == 6457827717110365317 >> 1


def test_seeds_of_neighbouring_places_differ_and_look_random():
    seeds = [derive_seed(*parts) for parts in np.ndindex(3, 8, 4, 32)]
    assert len(set(seeds)) == len(seeds)
    bits = np.array([[seed >> k & 1 for k in range(63)] for seed in seeds])
    # 3072 fair bits each: 7 standard deviations are 0.063
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.063)
    flipped = bits[1:] ^ bits[:-1]
    np.testing.assert_allclose(flipped.mean(), 0.5, atol=0.01)


def test_order_and_number_of_parts_matter():
    assert len({derive_seed(), derive_seed(0), derive_seed(0, 0), derive_seed(0, 1), derive_seed(1, 0)}) == 5


def test_negative_large_and_numpy_integers_are_allowed():
    assert derive_seed(-1) == derive_seed((1 << 64) - 1) != derive_seed(1)
    assert derive_seed(np.int64(-5), np.int32(3)) == derive_seed(-5, 3)
    torch.manual_seed(derive_seed(2**70))
    assert all(0 <= derive_seed(part) < 2**63 for part in range(-100, 100))


def test_a_seeded_block_repeats_and_leaves_the_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    with seeded(5):
        first = torch.rand(4)
    assert torch.equal(torch.rand(3), expected)
    with seeded(5):
        assert torch.equal(torch.rand(4), first)
    with seeded(6):
        assert not torch.equal(torch.rand(4), first)


def test_the_generator_is_put_back_after_an_exception():
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="size"), seeded(5):
        torch.rand(1) @ torch.rand(2)
    assert torch.equal(torch.get_rng_state(), state)


def test_blocks_nest():
    with seeded(1):
        expected = torch.rand(2)
    with seeded(1):
        first = torch.rand(1)
        with seeded(2):
            torch.rand(10)
        assert torch.equal(torch.cat([first, torch.rand(1)]), expected)


@pytest.mark.parametrize("parts", [(), (0,), (-1, 2**40), (3, 7)])
def test_many_seeds_are_those_derived_one_by_one(parts):
    last = np.array([0, 1, -1, 5, 2**40, -(2**62)])
    assert derive_seeds(*parts, last=last).tolist() == [derive_seed(*parts, int(i)) for i in last]

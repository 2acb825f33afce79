import numpy as np
import pytest
from scipy import stats

from medbolt.core.synthetic.counter import Stream, generator, uniform


def slow_uniform(seed, stream, index, draw):
    """The same numbers in Python integers."""
    mask, golden = 2**64 - 1, 0x9E3779B97F4A7C15

    def mix(z):
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & mask
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB & mask
        return z ^ (z >> 31)

    key = mix(mix((seed + golden) & mask) + stream * golden & mask)
    return (mix(mix(key + index * golden & mask) + (draw + 1) * golden & mask) >> 11) * 2.0**-53


@pytest.mark.parametrize("seed", [0, 1, 2**63 - 1])
def test_equals_plain_integer_arithmetic(seed):
    index = np.array([0, 1, 999_999])
    expected = [[slow_uniform(seed, Stream.COUNTS, i, k) for k in range(3)] for i in index.tolist()]
    assert uniform(seed, Stream.COUNTS, index, draws=3).tolist() == expected


def test_is_uniform_and_uncorrelated():
    u = uniform(3, Stream.DOMAIN, np.arange(20_000), draws=2)
    assert stats.kstest(u.ravel(), "uniform").pvalue > 1e-4
    others = (
        uniform(4, Stream.DOMAIN, np.arange(20_000), draws=2),
        uniform(3, Stream.COUNTS, np.arange(20_000), draws=2),
    )
    for a, b in [(u[:, 0], u[:, 1]), (u[1:, 0], u[:-1, 0]), (u[:, 0], others[0][:, 0]), (u[:, 0], others[1][:, 0])]:
        assert abs(np.corrcoef(a, b)[0, 1]) < 4 / np.sqrt(len(a))


def test_generators_differ_by_seed_stream_and_index():
    cases = [(0, Stream.EYE, 0), (1, Stream.EYE, 0), (0, Stream.CAMERA, 0), (0, Stream.EYE, 1)]
    assert len({generator(*case).random() for case in cases}) == len(cases)
    assert generator(*cases[0]).random() == generator(*cases[0]).random()

import math

import pytest
import torch

from medbolt.longtail import RepeatFactorSampler
from medbolt.longtail.samplers.repeat_factor import repeat_factors


def test_factors_equal_the_formula_sample_by_sample(targets, labels):
    f = (torch.bincount(targets) / 5000).tolist()
    expected = [max(1, math.sqrt(0.1 / f[y])) for y in targets.tolist()]
    torch.testing.assert_close(repeat_factors(targets, 0.1), torch.tensor(expected).double())
    f = labels.mean(0).tolist()
    rows = [[c for c in range(4) if row[c]] for row in labels.tolist()]
    expected = [max([1.0, *(math.sqrt(0.3 / f[c]) for c in row)]) for row in rows]
    torch.testing.assert_close(repeat_factors(labels, 0.3), torch.tensor(expected).double(), rtol=1e-6, atol=0)


def test_a_sample_is_drawn_its_factor_rounded_down_or_up_and_on_average_the_factor():
    targets = torch.tensor([0] * 150 + [1] * 8 + [2] * 2)
    sampler = RepeatFactorSampler(targets, threshold=0.12)
    counts = []
    for epoch in range(400):
        sampler.set_epoch(epoch)
        drawn = sampler.order()
        assert len(drawn) == sampler.epoch_size == math.ceil(sampler.factors.sum().item())
        counts.append(torch.bincount(drawn, minlength=160))
    counts = torch.stack(counts).double()
    factors = sampler.factors * (sampler.epoch_size / sampler.factors.sum())
    assert (counts >= sampler.factors.floor()).all()
    assert (counts <= factors.ceil()).all()
    fraction = (factors - factors.floor())[150:]
    deviation = (fraction * (1 - fraction) / len(counts)).sqrt()
    assert ((counts.mean(0) - factors)[150:].abs() <= 3.5 * deviation).all()  # ten samples: 3.5 for 3
    assert counts[:, :150].mean().item() == pytest.approx(factors[0].item(), abs=1e-3)


def test_frequent_classes_are_drawn_once_each():
    targets = torch.arange(4).repeat(25)
    assert sorted(RepeatFactorSampler(targets)) == list(range(100))


def test_rounding_is_independent_of_the_place_in_the_data():
    """Neighbours are not rounded alternately: all pairs of remainders occur."""
    sampler = RepeatFactorSampler(torch.tensor([0] * 90 + [1] * 10), threshold=0.225)  # ten samples at 1.5
    pairs = set()
    for epoch in range(40):
        sampler.set_epoch(epoch)
        pairs.add(tuple(torch.bincount(sampler.order(), minlength=100)[90:92].tolist()))
    assert pairs == {(1, 1), (1, 2), (2, 1), (2, 2)}


def test_a_threshold_that_is_not_positive_is_refused(targets):
    with pytest.raises(ValueError, match="threshold must be positive"):
        RepeatFactorSampler(targets, threshold=0.0)

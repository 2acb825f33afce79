import math
import warnings

import pytest
import torch

from medbolt.core.errors import UserError
from medbolt.noisy.noise.base import Labelled, LabelNoise, flip_by_score, flip_rates
from medbolt.noisy.noise.ordinal import OrdinalNoise
from medbolt.noisy.noise.pair_flip import PairFlipNoise
from medbolt.noisy.noise.symmetric import SymmetricNoise


class Fixed(LabelNoise):
    """Gives the samples the probabilities it was made with."""

    def __init__(self, rows):
        self.rows = torch.tensor(rows, dtype=torch.float64)

    def probabilities(self, samples):
        return self.rows


def test_the_draw_depends_on_seed_and_name_only(targets):
    noise, names = SymmetricNoise(0.4), [f"image {i}" for i in range(len(targets))]
    noisy = noise(targets, 5, seed=3, ids=names)
    order = torch.randperm(len(targets))[:100]
    assert (noise(targets[order], 5, 3, [names[i] for i in order]) == noisy[order]).all()
    assert (noise(targets, 5, seed=4, ids=names) != noisy).any()
    assert (noise(targets, 5, seed=3) != noisy).any()


def test_does_not_touch_the_global_generators(targets):
    before = torch.get_rng_state()
    SymmetricNoise(0.4)(targets, 5)
    assert (torch.get_rng_state() == before).all()


def test_impossible_labels_are_never_drawn():
    noise = Fixed([[0.0, 0.0, 1.0]] * 500 + [[0.5, 0.0, 0.5]] * 500)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        noisy = noise(torch.zeros(1000, dtype=torch.int64), 3)
    assert noisy[:500].unique().tolist() == [2]
    assert noisy[500:].unique().tolist() == [0, 2]


@pytest.mark.parametrize(
    ("noise", "classes", "beyond"),
    [
        (SymmetricNoise(0.79), 5, False),
        (SymmetricNoise(0.8), 5, True),
        (PairFlipNoise(0.49), 5, False),
        (PairFlipNoise(0.5), 5, True),
        (SymmetricNoise(0.99, include_self=True), 5, False),
        (OrdinalNoise(0.49), 5, False),
        (OrdinalNoise(0.5), 5, True),
        (OrdinalNoise(OrdinalNoise(0, reach=2.0).max_rate(5) - 0.01, reach=2.0), 5, False),
        (OrdinalNoise(OrdinalNoise(0, reach=2.0).max_rate(5) + 0.01, reach=2.0), 5, True),
    ],
)
def test_warns_from_the_limit_on(noise, classes, beyond):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        noise(torch.arange(20) % classes, classes)
    assert len(caught) == beyond
    if beyond:
        assert f"the limit is {noise.max_rate(classes):.3f}" in str(caught[0].message)
        assert caught[0].filename == __file__


def test_flip_rates_are_a_truncated_normal():
    samples = Labelled(torch.zeros(20_000).long(), 2, [str(i) for i in range(20_000)], seed=0)
    rates = flip_rates(samples, rate=0.05, std=0.1)
    assert ((rates >= 0) & (rates <= 1)).all()
    phi = math.exp(-0.125) / math.sqrt(2 * math.pi)  # truncated at half a standard deviation below the mean
    expected = 0.05 + 0.1 * phi / (0.5 * (1 + math.erf(0.5 / math.sqrt(2))))
    assert rates.mean().item() == pytest.approx(expected, abs=2e-3)


def test_flips_follow_the_scores_of_the_other_classes():
    rows = flip_by_score(torch.tensor([1]), torch.tensor([[1.0, 50.0, 2.0]]), torch.tensor([0.3]))
    odds = math.exp(1) / (math.exp(1) + math.exp(2))
    assert rows[0].tolist() == pytest.approx([0.3 * odds, 0.7, 0.3 * (1 - odds)])


@pytest.mark.parametrize("targets", [torch.zeros(3), torch.zeros(3, 2), torch.zeros(3, 2, dtype=torch.int64)])
def test_refuses_what_is_not_one_class_a_sample(targets):
    with pytest.raises(UserError, match="one class index a sample"):
        SymmetricNoise(0.1)(targets, 2)


def test_refuses_targets_out_of_range():
    with pytest.raises(UserError, match="0 to 1, got 0 to 2"):
        SymmetricNoise(0.1)(torch.tensor([0, 2]), 2)


def test_no_samples_give_no_labels():
    assert SymmetricNoise(0.1)(torch.zeros(0, dtype=torch.int64), 2).shape == (0,)

import pytest
import torch
from torch import nn

from medbolt.core.data.transforms import EvaluationTransform
from medbolt.core.errors import UserError
from medbolt.noisy.noise.base import Labelled, flip_by_score, flip_rates
from medbolt.noisy.noise.scorer import ScorerNoise

TARGETS = torch.arange(60) % 3


@pytest.fixture
def scorer():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(3 * 8 * 8, 3))


def test_flips_by_the_logits_of_the_network_in_evaluation(scorer, pictures):
    noise = ScorerNoise(scorer, 0.4, temperature=2.0, transform=EvaluationTransform(8), batch_size=7)
    samples = Labelled(TARGETS, 3, [str(i) for i in range(60)], 1, pictures)
    with torch.no_grad():
        logits = scorer.eval()(torch.stack([EvaluationTransform(8)(picture) for picture in pictures]))
    scorer.train()
    expected = flip_by_score(TARGETS, logits / 2, flip_rates(samples, 0.4, 0.1))
    torch.testing.assert_close(noise.probabilities(samples), expected, rtol=1e-4, atol=1e-5)
    assert scorer.training


def test_is_deterministic_given_the_network(scorer, pictures):
    noise = ScorerNoise(scorer, 0.4, transform=EvaluationTransform(8))
    first, second = (noise(TARGETS, 3, images=pictures) for _ in range(2))
    assert (first == second).all()
    assert (first != TARGETS).any()


def test_a_rate_of_zero_flips_nothing(scorer, pictures):
    noise = ScorerNoise(scorer, 0.0, transform=EvaluationTransform(8))
    assert torch.equal(noise(TARGETS, 3, images=pictures), TARGETS)


def test_refuses_a_network_of_other_classes(scorer, pictures):
    with pytest.raises(UserError, match=r"\(60, 3\) for 60 images of 4 classes"):
        ScorerNoise(scorer, 0.4, transform=EvaluationTransform(8))(TARGETS, 4, images=pictures)


@pytest.mark.parametrize("options", [{"rate": 2}, {"std": 0}, {"temperature": 0}, {"batch_size": 0}])
def test_refuses_arguments_out_of_range(options, scorer):
    with pytest.raises(ValueError, match=next(iter(options))):
        ScorerNoise(scorer, **{"rate": 0.4, **options})

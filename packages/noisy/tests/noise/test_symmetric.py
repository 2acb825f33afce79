import pytest
import torch

from medbolt.noisy.noise.report import noise_report
from medbolt.noisy.noise.symmetric import SymmetricNoise


def test_the_empirical_matrix_is_within_binomial_bounds(targets):
    report = noise_report(targets, SymmetricNoise(0.4)(targets, 5, seed=1), 5)
    expected = torch.full((5, 5), 0.1, dtype=torch.float64).fill_diagonal_(0.6)
    deviation = (expected * (1 - expected) / 2000).sqrt()
    assert ((report.transition - expected).abs() < 4 * deviation).all()


def test_including_the_class_itself_lowers_the_rate():
    assert SymmetricNoise(0.5, include_self=True).transition(5).diagonal().tolist() == pytest.approx([0.6] * 5)


def test_no_noise_changes_nothing(targets):
    assert (SymmetricNoise(0.0)(targets, 5) == targets).all()


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_refuses_rates_out_of_range(rate):
    with pytest.raises(ValueError, match="rate"):
        SymmetricNoise(rate)

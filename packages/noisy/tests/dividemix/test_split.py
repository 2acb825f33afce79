import warnings

import pytest
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

from medbolt.noisy.dividemix.split import clean_probability, confident, normalized


def losses(noisy=40):
    generator = torch.Generator().manual_seed(0)
    small, large = torch.randn(100 - noisy, generator=generator), torch.randn(noisy, generator=generator)
    return torch.cat([0.3 + 0.1 * small, 1.5 + 0.3 * large])


def test_probability_is_that_of_scikit_learn_s_smaller_component():
    scaled = normalized(losses())
    assert (float(scaled.min()), float(scaled.max())) == (0, 1)
    column = scaled.double()[:, None].numpy()
    mixture = GaussianMixture(2, max_iter=10, tol=1e-2, reg_covar=5e-4, random_state=3).fit(column)
    expected = mixture.predict_proba(column)[:, mixture.means_.argmin()]
    found = clean_probability(scaled, seed=3)
    torch.testing.assert_close(found, torch.from_numpy(expected))
    assert (found[:60] > 0.5).all()
    assert not (found[60:] > 0.5).any()


def test_losses_that_are_not_finite_are_left_out():
    found = losses()
    spoilt = torch.cat([found, torch.tensor([torch.nan, torch.inf, -torch.inf])])
    scaled = normalized(spoilt)
    torch.testing.assert_close(scaled[:100], normalized(found))
    probability = clean_probability(scaled, seed=0)
    torch.testing.assert_close(probability[:100], clean_probability(normalized(found), seed=0))
    assert probability[100:].tolist() == [0, 0, 0]


@pytest.mark.parametrize(("values", "expected"), [([2.0], [1]), ([2.0] * 3, [1] * 3), ([torch.nan] * 2, [0] * 2)])
def test_losses_that_tell_nothing(values, expected):
    assert clean_probability(normalized(torch.tensor(values)), seed=0).tolist() == expected


def test_a_fit_that_has_not_converged_is_the_method_s_and_no_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        clean_probability(torch.rand(500, generator=torch.Generator().manual_seed(0)), seed=0)


def test_the_best_hundredth_is_taken_when_nothing_passes():
    probability, present = torch.linspace(0, 0.4, 300), torch.ones(300, dtype=torch.bool)
    present[299] = False
    assert confident(probability, 0.5, present).nonzero().flatten().tolist() == [296, 297, 298]
    assert confident(probability, 0.39, present).sum() == 7
    assert not confident(probability, 0.5, ~torch.ones(300, dtype=torch.bool)).any()


def test_thresholds_may_differ_by_sample():
    threshold = torch.tensor([0.4, 0.6, 0.4])
    assert confident(torch.tensor([0.5, 0.5, 0.3]), threshold, torch.ones(3).bool()).tolist() == [True, False, False]

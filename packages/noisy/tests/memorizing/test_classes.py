import pytest
import torch

from medbolt.core import UserError
from medbolt.noisy import EarlyLearningRegularization
from medbolt.noisy.memorizing.classes import (
    as_distribution,
    as_logits,
    as_target,
    log_probability_of,
)

CALLBACK = EarlyLearningRegularization()


def test_logits_of_other_classes_and_of_maps_are_refused():
    for shape in ((4, 5), (4,), (4, 3, 8, 8)):
        with pytest.raises(UserError, match=r"remembers 3 classes .* one prediction an image"):
            log_probability_of(CALLBACK, torch.zeros(shape), 3)


@pytest.mark.parametrize("shape", [(6,), (6, 1), (6, 3)])
def test_there_and_back(shape):
    logits = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    log_p = log_probability_of(CALLBACK, logits, 3 if shape[-1] == 3 else 2)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(6))
    back = as_logits(log_p, logits)
    assert back.shape == logits.shape
    torch.testing.assert_close(log_probability_of(CALLBACK, back, log_p.shape[1]), log_p)


def test_targets_of_any_kind_become_distributions_and_targets_again():
    logits = {"one": torch.zeros(2), "column": torch.zeros(2, 1), "three": torch.zeros(2, 3)}
    for target, like in (
        (torch.tensor([0.0, 1.0]), logits["one"]),
        (torch.tensor([[0.3], [1.0]]), logits["column"]),
        (torch.tensor([[0.2, 0.3, 0.5], [1.0, 0.0, 0.0]]), logits["three"]),
    ):
        distribution = as_distribution(target, 3 if like is logits["three"] else 2)
        torch.testing.assert_close(distribution.sum(1), torch.ones(2))
        assert torch.equal(as_target(distribution, like), target)

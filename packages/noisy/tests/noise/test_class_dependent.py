import pytest
import torch

from medbolt.core.errors import UserError
from medbolt.noisy.noise.class_dependent import ClassDependentNoise
from medbolt.noisy.noise.report import noise_report

MATRIX = [[0.9, 0.1, 0.0], [0.0, 1.0, 0.0], [0.2, 0.2, 0.6]]


@pytest.mark.parametrize("matrix", [MATRIX, torch.tensor(MATRIX)], ids=["lists", "tensor"])
def test_the_empirical_matrix_is_the_given_one(matrix):
    targets = torch.arange(9000) % 3
    found = noise_report(targets, ClassDependentNoise(matrix)(targets, 3), 3).transition
    torch.testing.assert_close(found, torch.tensor(MATRIX, dtype=torch.float64), atol=0.03, rtol=0)


def test_refuses_a_matrix_that_does_not_fit():
    with pytest.raises(ValueError, match="row 0"):
        ClassDependentNoise([[0.5, 0.6], [0.0, 1.0]])
    with pytest.raises(UserError, match="3 classes and the data 2"):
        ClassDependentNoise(MATRIX)(torch.tensor([0, 1]), 2)

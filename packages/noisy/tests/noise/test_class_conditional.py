import torch

from medbolt.noisy.noise.base import Labelled
from medbolt.noisy.noise.class_conditional import ClassConditionalNoise

MATRIX = torch.tensor([[0.9, 0.1], [0.4, 0.6]], dtype=torch.float64)


class Given(ClassConditionalNoise):
    def transition(self, num_classes):
        return MATRIX


def test_every_sample_has_the_row_of_its_class():
    rows = Given().probabilities(Labelled(torch.tensor([1, 0, 1]), 2, ["a", "b", "c"], seed=0))
    assert rows.tolist() == [MATRIX[1].tolist(), MATRIX[0].tolist(), MATRIX[1].tolist()]

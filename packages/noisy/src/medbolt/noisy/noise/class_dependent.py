"""Noise by a transition matrix of one's own."""

from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.noisy.losses.transition import TransitionMatrix, as_transition
from medbolt.noisy.noise.class_conditional import ClassConditionalNoise


class ClassDependentNoise(ClassConditionalNoise):
    """Change labels by a given transition matrix.

    Args:
        matrix: K rows of K probabilities: ``matrix[i][j]`` is the probability that class i is labelled j.

    Raises:
        ValueError: if it is not square or a row does not sum to 1.
        UserError: at the call, if the data have other than K classes.

    Example:
        >>> noise = ClassDependentNoise([[1.0, 0.0], [0.3, 0.7]])
        >>> noise(torch.zeros(4, dtype=torch.int64), num_classes=2)  # class 0 is never mislabelled
        tensor([0, 0, 0, 0])
    """

    def __init__(self, matrix: TransitionMatrix) -> None:
        self.matrix = as_transition(matrix)

    def transition(self, num_classes: int) -> Tensor:
        """Return the transition matrix, (K, K) float64."""
        if len(self.matrix) != num_classes:
            raise UserError(
                f"the noise matrix has {len(self.matrix)} classes and the data {num_classes}; give it a row for each."
            )
        return self.matrix

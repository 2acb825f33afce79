"""Noise that depends on the class alone: a transition matrix."""

from abc import abstractmethod

from torch import Tensor

from medbolt.noisy.noise.base import Labelled, LabelNoise


class ClassConditionalNoise(LabelNoise):
    """Base of the noise models that are a transition matrix.

    Example:
        >>> class Cautious(ClassConditionalNoise):  # findings are missed, never invented
        ...     def transition(self, num_classes):
        ...         matrix = 0.8 * torch.eye(num_classes, dtype=torch.float64)
        ...         matrix[:, 0] += 0.2
        ...         return matrix
        >>> Cautious()(torch.zeros(3, dtype=torch.int64), num_classes=2)
        tensor([0, 0, 0])
    """

    @abstractmethod
    def transition(self, num_classes: int) -> Tensor:
        """Return the transition matrix, (K, K) float64: entry [i, j] is the probability that class i is labelled j."""

    def probabilities(self, samples: Labelled) -> Tensor:
        """Return the matrix row of each sample's class, (N, K) float64."""
        return self.transition(samples.num_classes)[samples.targets]

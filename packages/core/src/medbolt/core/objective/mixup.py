"""MixUp: train on weighted means of two images, with both labels."""

import torch
from torch import Tensor

from medbolt.core.objective.mixing import Mix, MixedInputs


class MixUp(MixedInputs):
    r"""Ask the network to behave linearly between images, which makes single wrong labels hard to learn by heart.

    .. math::
        \tilde x_i = \lambda x_i + (1 - \lambda) x_{\pi(i)}, \qquad
        \lambda\, \ell(f(\tilde x_i), y_i) + (1 - \lambda)\, \ell(f(\tilde x_i), y_{\pi(i)}), \qquad
        \lambda \sim \mathrm{Beta}(\alpha, \alpha)

    One weight :math:`\lambda` and one permutation :math:`\pi` a batch.

    Args:
        alpha: Parameter of the Beta distribution, positive: near 0 images stay almost pure, at 1 every weight is as
            likely, above it most are halves. For wrong labels the authors recommend 8 to 32 (as we remember the paper).
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network, whose first positional argument, (B, ...) float, is mixed.
        features: Dotted attribute of the layer of ``step.features``.

    Raises:
        ValueError: if ``alpha`` is not positive.

    State, cost: none; see :class:`~medbolt.core.MixedInputs`, also for its order among other callbacks.

    Source: Zhang et al., arXiv 1710.09412. Two losses in place of one with mixed labels, which is the same for cross
    entropy; with it any criterion and any kind of target will do.

    Example:
        >>> callback = MixUp(alpha=8.0, network="net")
    """

    def __init__(
        self,
        alpha: float = 1.0,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        if alpha <= 0:
            raise ValueError(f"alpha must be positive, got {alpha}")
        self.alpha = alpha

    def draw(self, size: int, target: Tensor | None, device: torch.device) -> Mix:
        """Return one weight and one permutation for the batch."""
        return drawn_mix(self.alpha, size, device)


def drawn_mix(alpha: float, size: int, device: torch.device) -> Mix:
    """Draw one weight from Beta(alpha, alpha) and a permutation for a batch.

    Example:
        >>> drawn_mix(1.0, 4, torch.device("cpu")).partner.sort().values
        tensor([0, 1, 2, 3])
    """
    weights = drawn_weights(alpha, alpha, 1).to(device).expand(size)
    return Mix(torch.randperm(size).to(device), weights, weights)


def drawn_weights(first: float, second: float, number: int) -> Tensor:
    """Draw from Beta(first, second), (number,), in float32, by torch's CPU generator.

    :class:`~medbolt.core.RandomState` seeds that for each batch.

    Example:
        >>> drawn_weights(0.2, 1.0, 3).shape
        torch.Size([3])
    """
    # not of the default dtype, which a precision may have lowered
    parameters = torch.tensor([first, second], dtype=torch.float32)
    return torch.distributions.Beta(parameters[0], parameters[1]).sample((number,))

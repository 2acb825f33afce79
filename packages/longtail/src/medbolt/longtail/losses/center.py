"""Center loss: features of a class stay near a center that is learned with them."""

import torch
from torch import Tensor, nn

from medbolt.core.losses import Reduction, reduce
from medbolt.longtail.losses.inputs import hard, precise


class CenterLoss(nn.Module):
    r"""Pull each sample's features towards the learned center of its class.

    .. math:: \ell_i = \tfrac{1}{2} \| x_i - \mu_{y_i} \|_2^2

    A penalty on features, to be added to a classification loss with a small weight. The centers are parameters: an
    optimizer must hold them (a module that has the loss as an attribute and optimizes ``self.parameters()`` does).

    Args:
        num_classes: Number of classes C.
        num_features: Number of features D.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Shapes:
        features (B, D) float; target (B,) int64 class indices; output () or (B,).

    Raises:
        UserError: for soft targets.

    State, cost: C x D parameters, standard normal at first; B x D operations.

    Source: Wen et al., ECCV 2016, doi 10.1007/978-3-319-46478-7_31. The paper moves the centers by their own
    rule, which plain gradient descent with its own learning rate (0.5 there, **unverified**) stands for. In MONICA no
    optimizer holds the centers, so that they stay where they were drawn.

    Example:
        >>> loss = CenterLoss(num_classes=2, num_features=3)
        >>> loss(loss.centers[[1]], torch.tensor([1])).item()
        0.0
    """

    def __init__(self, num_classes: int, num_features: int, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.centers = nn.Parameter(torch.randn(num_classes, num_features))
        self.reduction: Reduction = reduction

    def forward(self, features: Tensor, target: Tensor) -> Tensor:
        """Return the loss."""
        distance = precise(features) - self.centers[hard(target, self)]
        return reduce(distance.square().sum(1) / 2, self.reduction)

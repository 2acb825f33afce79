"""Tau-normalisation: a trained linear layer whose classes have had their lengths evened out."""

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.longtail.heads.linear_base import LinearBasedHead
from medbolt.longtail.losses.inputs import precise, require_several_outputs
from medbolt.longtail.posthoc.selection import best_by_balanced_accuracy

GRID = tuple(step / 10 for step in range(21))
"""0, 0.1, ..., 2: what the authors try."""


class TauNormalizedHead(LinearBasedHead):
    r"""Divide each class's weights by a power of their length; nothing is trained.

    .. math:: z_c = \frac{w_c^\top x}{\lVert w_c \rVert^{\tau}}

    Frequent classes have long weights after instance-balanced training. :math:`\tau = 0` is the linear layer without
    its bias, :math:`\tau = 1` a head of cosines but for the length of the features.
    :class:`~medbolt.longtail.EvaluationHead` puts it on a trained network for a test and tunes it.

    Args:
        in_features: Length D of the feature vectors.
        num_classes: Number of logits C.
        tau: Strength, not negative; an attribute that may be changed. ``None`` is tuned by :meth:`fit`.
        grid: What :meth:`fit` tries. Of equals it takes the first.

    Shapes:
        features (B, D) float; output (B, C) float32, or float64 where the features are.

    Raises:
        ValueError: if ``tau`` or a value of ``grid`` is negative, or the grid is empty.
        UserError: if it is used with ``tau=None`` before it was fitted.

    State, cost: weight and bias of the linear layer, as it has them; the bias is not used. That of a linear layer.

    Source: Kang et al., arXiv 1910.09217, and its code (grid). MONICA takes 2 without tuning, LongTailCXR -4, the wrong
    direction.

    Example:
        >>> linear = nn.Linear(2, 2)
        >>> linear.weight.data = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
        >>> TauNormalizedHead.from_linear(linear, tau=0.5)(torch.ones(1, 2))
        tensor([[2., 1.]])
    """

    fit_split: Literal["train", "val"] | None

    def __init__(
        self, in_features: int, num_classes: int, tau: float | None = 1.0, grid: Sequence[float] = GRID
    ) -> None:
        super().__init__(in_features, num_classes)
        if min([*grid, 0.0 if tau is None else tau]) < 0 or not len(grid):
            raise ValueError(f"tau and the grid must not be negative nor the grid empty, got {tau} and {list(grid)}")
        self.tau, self.grid = tau, tuple(grid)
        self.fit_split = "val" if tau is None else None

    @classmethod
    def from_linear(cls, linear: nn.Linear, tau: float | None = 1.0) -> "TauNormalizedHead":
        """Make the head over a trained layer, which is copied."""
        head = cls(linear.in_features, linear.out_features, tau)
        head.take(linear)
        return head

    def fit(self, features: Tensor, target: Tensor) -> None:
        """Choose the tau of the grid with the highest balanced accuracy.

        Args:
            features: (N, D) of validation samples.
            target: (N,) int64 classes.

        Raises:
            UserError: if there is one output only.
        """
        require_several_outputs(self.out_features, self)
        predictions = (self.logits(features, tau).argmax(1) for tau in self.grid)
        self.tau = self.grid[best_by_balanced_accuracy(predictions, target, self.out_features)]

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        if self.tau is None:
            raise UserError(
                "TauNormalizedHead was made with tau=None and not tuned; call fit(features, target) with validation "
                "samples, let EvaluationHead do it, or set tau."
            )
        return self.logits(features, self.tau)

    def logits(self, features: Tensor, tau: float) -> Tensor:
        """Return the logits that a tau gives."""
        features = precise(features)
        with torch.autocast(features.device.type, enabled=False):
            weight = self.weight.to(features)
            length = weight.norm(dim=1, keepdim=True)
            length = length.where(length > 0, 1.0)
            return F.linear(features, weight / length**tau)

"""DisAlign: shift and stretch a trained layer's logits, as much as each sample is trusted to need it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.longtail.heads.linear_base import LinearBasedHead
from medbolt.longtail.losses.inputs import precise


class DisAlignHead(LinearBasedHead):
    r"""Align a trained linear layer's logits with balanced classes, by a confidence and two numbers a class.

    .. math:: \hat z_c = (1 + \sigma(x)\, \alpha_c)\, z_c + \sigma(x)\, \beta_c, \qquad
        \sigma(x) = \operatorname{sigmoid}(v^\top x + b_0)

    It starts with :math:`\alpha = 1`, :math:`\beta = 0` and :math:`v = 0.1 \cdot \mathbf 1`: each sample's logits are
    stretched by one factor and its prediction stays. Train it with a frozen backbone, natural sampling and a loss that
    weighs classes by :math:`\pi_c^{-1.2}`, the authors' generalised re-weighting.

    Args:
        in_features: Length D of the feature vectors.
        num_classes: Number of logits C.

    Shapes:
        features (B, D) float; output (B, C) float32, or float64 where the features are.

    State, cost: D + 1 + 2 C trained numbers; the linear layer, frozen.

    Source: Zhang et al., arXiv 2103.16370, and its code (initial values); that :math:`b_0` starts at 0 is ours. MONICA
    draws the layer beneath anew and trains it. The variant for cosines is this head over a layer of normalised weights
    and is not included.

    Example:
        >>> linear = nn.Linear(3, 2)
        >>> head = DisAlignHead.from_linear(linear)
        >>> x = torch.zeros(1, 3)  # confidence 1/2
        >>> torch.allclose(head(x), 1.5 * linear(x))
        True
    """

    def __init__(self, in_features: int, num_classes: int) -> None:
        super().__init__(in_features, num_classes)
        self.confidence = nn.Linear(in_features, 1)
        nn.init.constant_(self.confidence.weight, 0.1)
        nn.init.zeros_(self.confidence.bias)
        self.alpha = nn.Parameter(torch.ones(num_classes))
        self.beta = nn.Parameter(torch.zeros(num_classes))

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        features = precise(features)
        with torch.autocast(features.device.type, enabled=False):
            direction, offset = self.confidence.weight.to(features), self.confidence.bias.to(features)
            confidence = F.linear(features, direction, offset).sigmoid()
            alpha, beta = self.alpha.to(features), self.beta.to(features)
            return (1 + confidence * alpha) * self.base(features) + confidence * beta

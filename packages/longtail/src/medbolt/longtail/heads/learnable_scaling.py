"""Learnable weight scaling (LWS): each class of a trained linear layer learns one number."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.longtail.heads.linear_base import LinearBasedHead
from medbolt.longtail.losses.inputs import precise


class LearnableScalingHead(LinearBasedHead):
    r"""Scale each class's weights of a trained linear layer by a factor that is learnt.

    .. math:: z_c = f_c \, w_c^\top x + b_c

    The factors start at one, so that it starts as the layer it was made from. Train it with a frozen backbone on
    class-balanced batches.

    Args:
        in_features: Length D of the feature vectors.
        num_classes: Number of logits C.
        train_weights: Train weight and bias as well, as MiSLAS (arXiv 2104.00466) does.
        scale_bias: Scale the whole logit, :math:`f_c (w_c^\top x + b_c)`, as MiSLAS does.

    Shapes:
        features (B, D) float; output (B, C) float32, or float64 where the features are.

    State, cost: C factors, ``scale``; the linear layer, frozen unless ``train_weights``.

    Source: Kang et al., arXiv 1910.09217. MONICA draws the bias anew, freezes it and scales it.

    Example:
        >>> linear = nn.Linear(3, 2)
        >>> head = LearnableScalingHead.from_linear(linear)
        >>> torch.equal(head(torch.ones(1, 3)), linear(torch.ones(1, 3))), [name for name, _ in head.named_parameters()]
        (True, ['scale'])
    """

    def __init__(
        self, in_features: int, num_classes: int, train_weights: bool = False, scale_bias: bool = False
    ) -> None:
        super().__init__(in_features, num_classes, train_weights)
        self.scale = nn.Parameter(torch.ones(num_classes))
        self.scale_bias = scale_bias

    def reset_parameters(self) -> None:
        """Draw the weights anew, where they are trained, and put the scales back to one."""
        super().reset_parameters()
        nn.init.ones_(self.scale)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        features = precise(features)
        with torch.autocast(features.device.type, enabled=False):
            scale = self.scale.to(features)
            if self.scale_bias:
                return scale * self.base(features)
            bias = None if self.bias is None else self.bias.to(features)
            return F.linear(features, scale.unsqueeze(1) * self.weight.to(features), bias)

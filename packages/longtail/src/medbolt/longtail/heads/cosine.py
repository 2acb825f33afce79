"""A head of cosines: the length of a class's weights, which grows with its frequency, plays no part."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.longtail.losses.inputs import precise


class CosineHead(nn.Module):
    r"""Give as logits the scaled cosines between the features and each class's weights.

    .. math:: z_c = s \, \frac{w_c^\top x}{\lVert w_c \rVert \, \lVert x \rVert}

    It is the head that :class:`~medbolt.longtail.LDAMLoss` and :class:`~medbolt.longtail.GaussianCloudedLogitLoss`
    are made for; their ``scale`` is then that of the head.

    Args:
        in_features: Length D of the feature vectors.
        num_classes: Number of logits C.
        scale: Scale s, positive; LDAM and GCL take 30. A softmax of cosines without one can hardly be sure of anything.
        learn_scale: Train the scale, as :math:`s e^{\theta}` with :math:`\theta = 0` at first. Leave it for losses with
            margins, which need to know it.
        eps: Least norm to divide by, positive, for features that are zero.

    Shapes:
        features (B, D) float; output (B, C) float32, or float64 where the features are.

    Raises:
        ValueError: if ``scale`` or ``eps`` is not positive.

    State, cost: (C, D) weights and no bias; two norms more than a linear layer. Computed in float32 under autocast.

    Source: the heads of Cao et al., arXiv 1906.07413, and Li et al., CVPR 2022 (GCL). MONICA trains LDAM on an
    ordinary linear layer. The weights start as normal numbers of variance 1/D; only their direction matters.

    Example:
        >>> head = CosineHead(2, 2, scale=10.0)
        >>> head.weight.data = torch.tensor([[3.0, 0.0], [0.0, 0.1]])
        >>> head(torch.tensor([[5.0, 0.0], [0.0, 0.0]]))
        tensor([[10.,  0.],
                [ 0.,  0.]], grad_fn=<MulBackward0>)
    """

    def __init__(
        self, in_features: int, num_classes: int, scale: float = 30.0, learn_scale: bool = False, eps: float = 1e-12
    ) -> None:
        super().__init__()
        if scale <= 0 or eps <= 0:
            raise ValueError(f"scale and eps must be positive, got {scale} and {eps}")
        self.in_features, self.out_features = in_features, num_classes
        self.scale, self.eps = scale, eps
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.log_factor = nn.Parameter(torch.zeros(())) if learn_scale else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights, and put a learnt scale back to what it starts as."""
        nn.init.normal_(self.weight, std=self.in_features**-0.5)
        if self.log_factor is not None:
            nn.init.zeros_(self.log_factor)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits."""
        features = precise(features)
        with torch.autocast(features.device.type, enabled=False):
            weight = F.normalize(self.weight.to(features), dim=1, eps=self.eps)
            cosines = F.normalize(features, dim=1, eps=self.eps) @ weight.T
            scale = self.scale if self.log_factor is None else self.scale * self.log_factor.to(features).exp()
            return cosines * scale

    def extra_repr(self) -> str:
        """Show what the head was made with."""
        return f"{self.in_features}, {self.out_features}, scale={self.scale}, learn_scale={self.log_factor is not None}"

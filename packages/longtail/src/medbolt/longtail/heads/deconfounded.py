"""A head that takes the average feature, and with it the bias towards frequent classes, out of its predictions."""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.longtail.losses.inputs import precise


class DeconfoundedHead(nn.Module):
    r"""Classify with K normalised parts of the features, and predict with the total direct effect (TDE).

    .. math::
        z_c &= \frac{\tau}{K} \sum_{k=1}^{K} \frac{w_{ck}^\top u_k}{\lVert w_{ck} \rVert + \gamma}, \qquad
        u_k = \hat x_k \ \text{(training)}, \quad
        u_k = \hat x_k - \alpha \cos(\hat x_k, \hat m_k)\, \hat m_k \ \text{(TDE)} \\
        m &\leftarrow \mu m + \operatorname{mean}_i x_i

    where :math:`x_k` is the k-th part of the features and a hat divides by the length. The moving mean m of the
    training features points to where momentum carries the frequent classes; predictions do without that direction.

    Args:
        in_features: Length D of the feature vectors, a multiple of ``parts``.
        num_classes: Number of logits C.
        alpha: Strength of TDE; the authors take 3.0 for ImageNet-LT, 1.5 for CIFAR-100 of ratio 100.
        temperature: Scale :math:`\tau`.
        parts: Number K of parts.
        gamma: Added to the length of the weights.
        momentum: Decay :math:`\mu` of the mean, in [0, 1).

    Attributes:
        apply_tde: Whether to predict with TDE in evaluation mode; in training mode it is never applied.

    Shapes:
        features (B, D) float; output (B, C) float32, or float64 where the features are.

    Raises:
        ValueError: if ``in_features`` is no multiple of ``parts``, or ``momentum`` outside [0, 1).

    State, cost: (C, D) weights; the mean (D,), a buffer. Processes average their batches, one small message a batch in
    training mode. Each training forward moves the mean, so a second view of a batch counts as another batch.

    Source: Tang et al., arXiv 2009.12991. Their code ties the momentum to the learning rate; here it is constant.
    MONICA keeps the mean outside the checkpoint and applies TDE while training.

    Example:
        >>> head = DeconfoundedHead(4, 3)
        >>> _ = head(torch.ones(2, 4))  # moves the mean
        >>> head.mean
        tensor([1., 1., 1., 1.])
    """

    mean: Tensor

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        alpha: float = 1.5,
        temperature: float = 16.0,
        parts: int = 2,
        gamma: float = 1 / 32,
        momentum: float = 0.9,
    ) -> None:
        super().__init__()
        if parts < 1 or in_features % parts:
            raise ValueError(f"in_features must be a multiple of parts, got {in_features} and {parts}")
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum must be in [0, 1), got {momentum}")
        self.in_features, self.out_features = in_features, num_classes
        self.alpha, self.temperature, self.parts = alpha, temperature, parts
        self.gamma, self.momentum = gamma, momentum
        self.apply_tde = True
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.register_buffer("mean", torch.zeros(in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as a linear layer's, and forget the mean."""
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)
        nn.init.zeros_(self.mean)

    def forward(self, features: Tensor) -> Tensor:
        """Return logits; in training mode also move the mean."""
        features = precise(features)
        if self.training:
            self._move_mean(features.detach())
        with torch.autocast(features.device.type, enabled=False):
            weight = self._split(self.weight.to(features))
            directions = F.normalize(self._split(features), dim=2)
            if self.apply_tde and not self.training:
                mean = F.normalize(self._split(self.mean.to(features).unsqueeze(0)), dim=2)
                directions = directions - self.alpha * (directions * mean).sum(2, keepdim=True) * mean
            weight = weight / (weight.norm(dim=2, keepdim=True) + self.gamma)
            return self.temperature / self.parts * directions.flatten(1) @ weight.flatten(1).T

    def _split(self, vectors: Tensor) -> Tensor:
        return vectors.unflatten(1, (self.parts, -1))

    @torch.no_grad()
    def _move_mean(self, features: Tensor) -> None:
        total = torch.cat([features.sum(0), features.new_tensor([len(features)])])
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(total)
        self.mean = self.momentum * self.mean + (total[:-1] / total[-1].clamp(min=1)).to(self.mean)

    def extra_repr(self) -> str:
        """Show what the head was made with."""
        return f"{self.in_features}, {self.out_features}, alpha={self.alpha}, parts={self.parts}"

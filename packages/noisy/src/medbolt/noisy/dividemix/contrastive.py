"""A contrastive loss of two views: alike to each other, unlike all others."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ContrastiveHead(nn.Module):
    r"""Project features and compare them (SimCLR's NT-Xent).

    .. math::
        -\frac{1}{2n} \sum_{a} \log \frac{\exp(\cos(z_a, z_{\bar a}) / T)}{\sum_{b \ne a} \exp(\cos(z_a, z_b) / T)}

    over the 2 n views, where :math:`\bar a` is the other view of a's image.

    Args:
        features: Number D of features.
        temperature: T, positive.
        width: Width of the projection.

    Shapes:
        two of (n, D) to () float32; 0 for fewer than two images, which have nothing to differ from.

    Source: Chen et al., arXiv 2002.05709, eq. 1.

    Example:
        >>> ContrastiveHead(4, temperature=0.5)(torch.randn(1, 4), torch.randn(1, 4)) == 0
        tensor(True)
    """

    def __init__(self, features: int, temperature: float, width: int = 128) -> None:
        super().__init__()
        self.temperature = temperature
        self.projection = nn.Sequential(nn.Linear(features, features), nn.ReLU(), nn.Linear(features, width))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss."""
        n = len(first)
        with torch.autocast(first.device.type, enabled=False):
            z = F.normalize(self.projection(torch.cat([first, second]).to(next(self.parameters()))), dim=1)
            if n < 2:
                return 0 * z.sum()  # of every process the same parameters have a gradient
            cosine = (z @ z.T / self.temperature).fill_diagonal_(-torch.inf)
            return F.cross_entropy(cosine, torch.arange(2 * n, device=z.device).roll(n))

"""Alike features of two views, without negatives and without collapse."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity


class FeatureConsistency(nn.Module):
    r"""Ask one view's projection to foretell the other one's, which gets no gradient.

    .. math:: -\tfrac12 \cos(h(z^1), \mathrm{sg}(z^2)) - \tfrac12 \cos(h(z^2), \mathrm{sg}(z^1))

    z is a projection of the features and h a small network. Without batch normalisation, so a batch of one will do.

    Args:
        features: Number D of features.
        hidden: Width of the projection and of h.

    Shapes:
        two of (B, D) to (B,) float32 in [-1, 1].

    Source: the form of Chen and He, arXiv 2011.10566, as Feng et al., arXiv 2111.11288, use it; the widths are ours.

    Example:
        >>> alike = FeatureConsistency(4)
        >>> alike(torch.randn(2, 4), torch.randn(2, 4)).shape
        torch.Size([2])
    """

    def __init__(self, features: int, hidden: int = 128) -> None:
        super().__init__()
        self.projection = nn.Sequential(nn.Linear(features, hidden), nn.ReLU(), nn.Linear(hidden, hidden))
        self.prediction = nn.Sequential(nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the loss of each pair."""
        with torch.autocast(first.device.type, enabled=False):
            z = [self.projection(view.to(next(self.parameters()))) for view in (first, second)]
            foretold = [self.prediction(each) for each in z]
            cosines = [cosine_similarity(foretold[k], z[1 - k].detach(), dim=1) for k in range(2)]
        return -(cosines[0] + cosines[1]) / 2

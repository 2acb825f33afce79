"""Nearest class mean: a sample belongs to the class whose average features are nearest."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.longtail.losses.inputs import hidden, precise, require_several_outputs

Space = Literal["un", "l2n", "cl2n"]
Similarity = Literal["euclidean", "cosine"]


class NearestClassMeanHead(nn.Module):
    r"""Score classes by the nearness of their mean features; every class weighs the same, however many samples made it.

    .. math:: z_c = -\lVert g(x) - \mu_c \rVert^2 \quad\text{or}\quad \cos(g(x), \mu_c), \qquad
        \mu_c = \frac{1}{n_c} \sum_{i : y_i = c} g(x_i)

    with :math:`g(x) = x` (``"un"``), :math:`x / \lVert x \rVert` (``"l2n"``), or
    :math:`(x - \bar x) / \lVert x - \bar x \rVert` with the mean :math:`\bar x` of all samples (``"cl2n"``).
    :class:`~medbolt.longtail.EvaluationHead` puts it on a trained network for a test and fits it.

    Args:
        in_features: Length D of the feature vectors.
        num_classes: Number of logits C.
        space: Where means are taken.
        similarity: ``"euclidean"``, minus the squared distance, or ``"cosine"``.

    Shapes:
        features (B, D) float; output (B, C) float32, or float64 where the features are. A class that no sample was
        seen of is never predicted.

    Raises:
        UserError: if it is used before it was fitted.

    State, cost: C + 1 vectors and C flags, as buffers; one pass over the training features.

    Source: Kang et al., arXiv 1910.09217. MONICA takes the means of resampled and augmented images; here each training
    image counts once.

    Example:
        >>> head = NearestClassMeanHead(1, 2, space="un")
        >>> head.fit(torch.tensor([[0.0], [2.0], [5.0]]), torch.tensor([0, 0, 1]))
        >>> head(torch.tensor([[2.0]]))  # means 1 and 5
        tensor([[-1., -9.]])
    """

    fit_split: Literal["train", "val"] | None = "train"
    centroids: Tensor
    center: Tensor
    count: Tensor

    def __init__(
        self, in_features: int, num_classes: int, space: Space = "cl2n", similarity: Similarity = "euclidean"
    ) -> None:
        super().__init__()
        self.in_features, self.out_features = in_features, num_classes
        self.space: Space = space
        self.similarity: Similarity = similarity
        self.register_buffer("centroids", torch.zeros(num_classes, in_features))
        self.register_buffer("center", torch.zeros(in_features))
        self.register_buffer("count", torch.zeros(num_classes, dtype=torch.int64))

    def fit(self, features: Tensor, target: Tensor) -> None:
        """Take the means of the classes.

        Args:
            features: (N, D) of training samples.
            target: (N,) int64 classes.

        Raises:
            UserError: if there is one output only.
        """
        require_several_outputs(self.out_features, self)
        features, target = features.detach().double(), target.to(features.device)
        self.count = torch.bincount(target, minlength=self.out_features)
        self.center = features.mean(0).to(self.centroids)
        placed = self._placed(features)
        sums = torch.zeros(self.out_features, self.in_features).to(placed).index_add_(0, target, placed)
        self.centroids = (sums / self.count.clamp(min=1).unsqueeze(1)).to(self.centroids)
        self.count = self.count.to(self.centroids.device)

    def forward(self, features: Tensor) -> Tensor:
        """Return scores."""
        if not self.count.any():
            raise UserError(
                "NearestClassMeanHead knows no class means; call fit(features, target) with training samples, or let "
                "EvaluationHead do it."
            )
        features = precise(features)
        with torch.autocast(features.device.type, enabled=False):
            placed, centroids = self._placed(features), self.centroids.to(features)
            if self.similarity == "cosine":
                scores = F.normalize(placed, dim=1) @ F.normalize(centroids, dim=1).T
            else:
                scores = -torch.cdist(placed, centroids, compute_mode="donot_use_mm_for_euclid_dist").square()
            return hidden(scores, self.count == 0)

    def _placed(self, features: Tensor) -> Tensor:
        if self.space == "un":
            return features
        return F.normalize(features - self.center.to(features) if self.space == "cl2n" else features, dim=1)

    def extra_repr(self) -> str:
        """Show what the head was made with."""
        return f"{self.in_features}, {self.out_features}, space={self.space!r}, similarity={self.similarity!r}"

"""Noise that depends on the picture: what resembles another class is taken for it."""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from medbolt.core.data.dataset import Images
from medbolt.core.randomness import derive_seed
from medbolt.noisy.noise.base import Labelled, LabelNoise, check_rate, flip_by_score, flip_rates

_PROJECTION = 2


class InstanceDependentNoise(LabelNoise):
    r"""Flip each label at its own rate, to the class that a random linear function of the picture prefers.

    .. math:: q_i \sim \mathcal{N}_{[0, 1]}(\rho, \sigma^2), \quad
        s_i = \frac{x_i W_{y_i}}{\tau \sqrt D}, \quad
        P_i = q_i \operatorname{softmax}_{k \ne y_i}(s_i) + (1 - q_i)\, e_{y_i}

    :math:`W \in \mathbb{R}^{K \times D \times K}` is standard normal; :math:`x_i` is the picture, sampled at the points
    of a coarse grid, with zero mean and unit variance. So pictures that look alike are mislabelled alike. The
    class stays identifiable on average for rates below (K - 1) / K, but for the single picture only below about 1/2.

    Args:
        rate: Mean flip rate :math:`\rho` in [0, 1].
        std: Standard deviation :math:`\sigma` of the flip rates.
        temperature: :math:`\tau`: the lower, the more a picture has just one wrong label.
        grid: Points a side of the grid that pictures are sampled at; ``None`` projects every pixel, for pictures of one
            size.
        chunk_size: Pictures in memory at a time.

    Raises:
        ValueError: if ``rate`` is outside [0, 1], or another argument is not positive.
        UserError: at the call, if there are no images.

    State, cost: none; each picture is read once, and multiplied with one D by K matrix (D = 3 * grid²).

    Source: Xia et al., arXiv 2006.07836, algorithm 2. Public code projects raw pixels one sample at a time, with scores
    so large that the softmax is one-hot; here they are standardised, ``temperature`` says how sharp they are, and the
    grid keeps W small for pictures of any size.

    Example:
        >>> images = torch.randint(0, 256, (6, 3, 40, 40), dtype=torch.uint8)
        >>> InstanceDependentNoise(0.4)(torch.tensor([0, 1, 2, 0, 1, 2]), num_classes=3, images=images).shape
        torch.Size([6])
    """

    def __init__(
        self,
        rate: float,
        std: float = 0.1,
        temperature: float = 0.1,
        grid: int | None = 32,
        chunk_size: int = 64,
    ) -> None:
        self.rate = check_rate(rate)
        for name, value in {"std": std, "temperature": temperature, "grid": grid, "chunk_size": chunk_size}.items():
            if value is not None and value <= 0:
                raise ValueError(f"{name} must be positive, got {value}")
        self.std, self.temperature, self.grid, self.chunk_size = std, temperature, grid, chunk_size

    def probabilities(self, samples: Labelled) -> Tensor:
        """Return the probabilities of the labels that each sample may get, (N, K) float64."""
        return flip_by_score(samples.targets, self._scores(samples), flip_rates(samples, self.rate, self.std))

    def _scores(self, samples: Labelled) -> Tensor:
        """Return (N, K) float64 scores, each row by the projection of the sample's class."""
        pictures, targets, classes = samples.pictures, samples.targets, samples.num_classes
        scores = torch.empty(len(targets), classes, dtype=torch.float64)
        chunks = torch.arange(len(targets)).split(self.chunk_size)
        projection = None
        for rows in tqdm(chunks, desc="instance noise", disable=len(chunks) < 2, leave=False):
            x = self._standardised(pictures, rows.tolist())
            if projection is None:
                generator = torch.Generator().manual_seed(derive_seed(samples.seed, _PROJECTION))
                projection = torch.randn(classes, x.shape[1], classes, generator=generator, dtype=x.dtype)
            for label in targets[rows].unique().tolist():
                chosen = targets[rows] == label
                scores[rows[chosen]] = (x[chosen] @ projection[label]).double()
            scores[rows] /= self.temperature * x.shape[1] ** 0.5
        return scores

    def _standardised(self, pictures: Images, rows: list[int]) -> Tensor:
        """Return pictures as rows of zero mean and unit variance, (n, D); float64 on a grid, which spares rounding."""
        x = torch.stack([self._sampled(pictures[row]) for row in rows]).flatten(1).float()
        x = F.layer_norm(x, x.shape[1:], eps=0.1)  # a tenth of a grey value squared, for blank pictures
        return x if self.grid is None else x.double()

    def _sampled(self, picture: Tensor) -> Tensor:
        """Return the pixels at the middles of the cells of the grid, (3, grid, grid)."""
        if self.grid is None:
            return picture
        height, width = picture.shape[1:]
        return picture.index_select(1, _middles(height, self.grid)).index_select(2, _middles(width, self.grid))


@cache
def _middles(side: int, cells: int) -> Tensor:
    """Return the pixel in the middle of each cell that a side of a picture is divided into, (cells,) int64."""
    return torch.arange(side, 2 * side * cells, 2 * side) // (2 * cells)

"""Noise that depends on the picture: what resembles another class is taken for it."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import linear
from tqdm import tqdm

from medbolt.core.randomness import derive_seed
from medbolt.noisy.noise.base import Labelled, LabelNoise, check_rate, flip_by_score, flip_rates

_PROJECTION = 2
_EXACT = 256  # so many squares of grey values add up to less than 2**24


class InstanceDependentNoise(LabelNoise):
    r"""Flip each label at its own rate, to the class that a random linear function of the picture prefers.

    .. math:: q_i \sim \mathcal{N}_{[0, 1]}(\rho, \sigma^2), \quad
        s_i = \frac{x_i W_{y_i}}{\tau \sqrt D}, \quad
        P_i = q_i \operatorname{softmax}_{k \ne y_i}(s_i) + (1 - q_i)\, e_{y_i}

    :math:`W \in \mathbb{R}^{K \times D \times K}` is standard normal; :math:`x_i` is the picture, sampled at the points
    of a coarse grid, with zero mean and unit variance. So pictures that look alike are mislabelled alike. The
    class stays identifiable on average for rates below (K - 1) / K, but for the single picture only below about 1/2.

    Args:
        rate: Mean :math:`\rho` of the flip rates before truncation, in [0, 1]; 0 flips nothing. Near 0 and 1 truncation
            moves the mean inwards: with ``std=0.1`` a rate of 0.05 flips 10 %, and 1 flips 92 %.
        std: Standard deviation :math:`\sigma` of the flip rates before truncation.
        temperature: :math:`\tau`: the lower, the more a picture has just one wrong label.
        grid: Points a side of the grid that pictures are sampled at; ``None`` projects every pixel, for pictures of one
            size.
        chunk_size: Pictures in memory at a time.

    Raises:
        ValueError: if ``rate`` is outside [0, 1], or another argument is not positive.
        UserError: at the call, if there are no images.

    State, cost: none; each picture is read once, and multiplied with one D by K matrix (D = 3 * grid²). The grid is
    what makes it fast: at 224 pixels ``grid=None`` costs some twelve times as much, half of public code's loop.

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
        projection, values = None, None  # one piece of memory for all chunks: making it anew costs more than the rest
        for rows in tqdm(chunks, desc="instance noise", disable=len(chunks) < 2, leave=False):
            rows = rows[targets[rows].argsort(stable=True)]  # so that a class is a slice
            sampled = np.stack([self._sampled(pictures[row].numpy()) for row in rows.tolist()])
            values = torch.empty(sampled.shape) if values is None else values
            x = values[: len(rows)].copy_(torch.from_numpy(sampled)).flatten(1)
            if projection is None:
                projection = _Projection.drawn(samples.seed, classes, x.shape[1], exact=self.grid is not None)
            labels, counts = targets[rows].unique_consecutive(return_counts=True)
            parts = zip(labels.tolist(), x.split(counts.tolist()), strict=True)
            projected = torch.cat([projection(label, pixels) for label, pixels in parts])
            mean, variance = _moments(x)
            centred = projected - mean[:, None] * projection.total[targets[rows]]
            # a tenth of a grey value squared, for blank pictures
            scores[rows] = centred / (self.temperature * (x.shape[1] * (variance[:, None] + 0.1)).sqrt())
        return scores

    def _sampled(self, picture: np.ndarray) -> np.ndarray:
        """Return the pixels at the middles of the cells of the grid, (3, grid, grid)."""
        if self.grid is None:
            return picture
        height, width = picture.shape[1:]
        return picture[:, _middles(height, self.grid)][:, :, _middles(width, self.grid)]


@cache
def _middles(side: int, cells: int) -> np.ndarray | slice:
    """Return the places of the pixels in the middle of each cell that a side of a picture is divided into."""
    if side % cells == 0:  # a slice spares a copy
        return slice(side // (2 * cells), None, side // cells)
    return np.arange(side, 2 * side * cells, 2 * side) // (2 * cells)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance of rows of grey values, (n,) float64.

    Of so few values the sums are exact in float32, so they do not depend on their order.
    """
    size, whole = x.shape[1], x.shape[1] // _EXACT * _EXACT
    parts = [x[:, :whole].unflatten(1, (-1, _EXACT)), x[:, None, whole:]]
    mean = torch.stack([part.sum(2).sum(1, dtype=torch.float64) for part in parts]).sum(0) / size
    square = (
        torch.stack([torch.linalg.vector_norm(part, dim=2).double().square().sum(1) for part in parts]).sum(0) / size
    )
    return mean, square - mean.square()


@dataclass(frozen=True, eq=False)
class _Projection:
    """W as two summands, of which products of grey values with the first, and sums of these, are exact in float32.

    So scores hardly depend on the order of summation, which changes with the size of a chunk and between machines.
    """

    parts: Tensor  # (K, K, D) or (K, 2 K, D) float32
    total: Tensor  # (K, K) float64, the sums over D

    @classmethod
    def drawn(cls, seed: int, classes: int, size: int, *, exact: bool) -> "_Projection":
        """Draw it; a single summand, for half the memory, unless it is to be exact."""
        generator = torch.Generator().manual_seed(derive_seed(seed, _PROJECTION))
        dtype = torch.float64 if exact else torch.float32
        values = torch.randn(classes, size, classes, generator=generator, dtype=dtype).transpose(1, 2).contiguous()
        total = values.sum(2, dtype=torch.float64)
        if not exact:
            return cls(values, total)
        coarse = (values * 64).round() / 64
        return cls(torch.cat([coarse, values - coarse], 1).float(), total)

    def __call__(self, label: int, x: Tensor) -> Tensor:
        """Return grey values, (n, D), times the matrix of a class, (n, K) float64."""
        products = linear(x, self.parts[label]).double()
        return products.view(len(x), -1, self.parts.shape[0]).sum(1)

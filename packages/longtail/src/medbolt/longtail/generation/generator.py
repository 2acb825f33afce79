"""What generates feature maps of rare classes: centers of classes, a filter that compares maps, a transformation."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from medbolt.core.errors import UserError
from medbolt.longtail.generation.pairing import pairs
from medbolt.longtail.losses.inputs import precise


@dataclass
class Generated:
    """What was made for a batch.

    Args:
        size: Samples in the batch.
        rare: (G,) int64, which of them the generated maps are of.
        maps: (G, C, H, W), or ``None`` where there are none.
        loss: () the generator's losses, weighted.
    """

    size: int
    rare: Tensor
    maps: Tensor | None
    loss: Tensor


class RareSampleGenerator(nn.Module):
    r"""The trained parts of :class:`~medbolt.longtail.RareSampleGeneration`, whose formulas they have.

    All maps come without their gradient: nothing of this reaches the layers below.

    Args:
        channels: Channels C of the maps.
        is_frequent: (C,) bool, the frequent ones of all classes.
        centers: Centers K of each class.
        hidden: Channels within the filter.
        strength: Transfer strength.
        center_weight: Weight of the losses of centers and filter.
        vector_weight: Weight of the loss of vectors.

    Shapes:
        maps (B, C, H, W) float; target (B,) int64; losses () float32, or float64 where the maps are.

    Raises:
        UserError: for maps of another shape, or targets that are no classes.

    State, cost: the centers, 0 at first, and what assigns maps to them, 2 K C a class; a 3 x 3 convolution of C to C
    channels; the filter. The assignment takes B K C memory, not B K C H W.

    Example:
        >>> generator = RareSampleGenerator(channels=4, is_frequent=torch.tensor([True, False, False]))
        >>> generator(torch.rand(3, 4, 5, 5), torch.tensor([0, 0, 2]), is_generating=True).maps.shape
        torch.Size([2, 4, 5, 5])
    """

    is_frequent: Tensor

    def __init__(
        self,
        channels: int,
        is_frequent: Tensor,
        centers: int = 15,
        hidden: int = 256,
        strength: float = 1.0,
        center_weight: float = 0.1,
        vector_weight: float = 0.01,
    ) -> None:
        super().__init__()
        self.strength, self.center_weight, self.vector_weight = strength, center_weight, vector_weight
        num_classes = len(is_frequent)
        self.register_buffer("is_frequent", is_frequent, persistent=False)
        self.centers = nn.Parameter(torch.zeros(num_classes, centers, channels))
        # at a scale of 1, as in the authors' code, most maps belong to one center wholly before anything is learned
        self.weight = nn.Parameter(torch.randn(num_classes, channels, centers) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(num_classes, centers))
        self.filter = nn.Sequential(
            nn.Conv2d(2 * channels, hidden, 1),
            nn.ReLU(),
            nn.Conv2d(hidden, hidden, 3, padding=1),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(hidden, 2),
        )
        self.transformation = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, maps: Tensor, target: Tensor, is_generating: bool) -> Generated:
        """Return generated maps of rare classes, or none while centers and filter are learned, and the losses."""
        self._check(maps, target)
        maps, generated = maps.detach(), None
        displacement, loss = self.displacement(maps, target)
        loss, rare = self.center_weight * loss, target[:0]
        if not is_generating:
            return Generated(len(maps), rare, None, loss + self.center_weight * self.pair_loss(maps, target))
        frequent, rare = pairs(self.is_frequent[target], self.strength)
        if len(rare):
            generated, vector_loss = self.generate(maps, displacement, frequent, rare)
            loss = loss + self.vector_weight * vector_loss
        return Generated(len(maps), rare, generated, loss)

    def zero(self) -> Tensor:
        """Return 0 with a gradient of 0 to every parameter."""
        return 0.0 * torch.stack([parameter.flatten()[0] for parameter in self.parameters()]).sum()

    def displacement(self, maps: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Return how maps differ from the center they belong to most, (B, C, H, W), and the centers' loss.

        The loss is less than the formula by the spread of each map about its mean, which no parameter changes.
        """
        mean = precise(maps).mean((2, 3))
        centers = precise(self.centers)[target]
        # products and sums, for autocast would lower a matrix product
        scores = (mean[..., None] * self.weight[target]).sum(1) + self.bias[target]
        share = precise(scores).softmax(1)
        distance = (mean[:, None] - centers).square().sum(2)
        loss = maps[0, 0].numel() * (share * distance).sum(1).mean()
        nearest = centers.detach()[torch.arange(len(maps), device=maps.device), share.argmax(1)]
        return precise(maps) - nearest[..., None, None], loss

    def pair_loss(self, maps: Tensor, target: Tensor) -> Tensor:
        """Return the filter's loss: are the maps of the batch's first half of the classes of its second half?"""
        half = len(maps) // 2
        if half == 0:
            return precise(maps).new_zeros(())
        first, second = slice(half), slice(half, 2 * half)
        log_p = precise(self.filter(torch.cat([maps[first], maps[second]], 1))).log_softmax(1)
        # not F.cross_entropy, which an objective on criterion="functional" would take for the module's criterion
        return -log_p.gather(1, (target[first] == target[second]).long()[:, None]).mean()

    def generate(self, maps: Tensor, displacement: Tensor, frequent: Tensor, rare: Tensor) -> tuple[Tensor, Tensor]:
        """Return maps of the rare samples, changed as frequent ones differ from their centers, and the vector loss.

        Args:
            maps: The batch's maps.
            displacement: Those of :meth:`displacement`.
            frequent: (G,) int64 positions of samples of frequent classes.
            rare: (G,) int64 positions of samples of rare classes.
        """
        vector = self.transformation(displacement[frequent].to(maps.dtype))
        fixed = {name: parameter.detach() for name, parameter in self.filter.named_parameters()}
        pairs = torch.cat([maps[frequent], vector.to(maps.dtype)], 1)
        different = -precise(functional_call(self.filter, fixed, (pairs,))).log_softmax(1)[:, 0].mean()
        generated, vector = maps[rare] + vector.to(maps.dtype), precise(vector)
        length = (vector.norm(dim=1) - displacement[frequent].norm(dim=1)).abs()
        # a vector of length 0 has no direction; near it the gradient is bounded by 1 / eps
        turn = 1 - F.cosine_similarity(vector, displacement[rare], dim=1, eps=1e-3)
        return generated, different + (length + turn).sum((1, 2)).mean()

    def _check(self, maps: Tensor, target: Tensor) -> None:
        channels, classes = self.centers.shape[2], len(self.is_frequent)
        if not isinstance(maps, Tensor) or maps.ndim != 4 or (*maps.shape[:2],) != (len(target), channels):
            raise UserError(
                f"rare samples are generated from maps ({len(target)}, {channels}, H, W), but the layer gave "
                f"{tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__}; name a layer with one map "
                "a sample, and its number of channels."
            )
        if not 0 <= int(target.min()) <= int(target.max()) < classes:
            raise UserError(
                f"rare samples are generated of {classes} classes, but the batch's targets are from "
                f"{int(target.min())} to {int(target.max())}; give one class count a class and leave out samples "
                "without a label."
            )

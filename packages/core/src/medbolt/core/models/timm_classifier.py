"""Any timm backbone with a linear head, split so that methods can reach both."""

from typing import Any

import timm
import torch
from torch import Tensor, nn

from medbolt.core.errors import UserError, did_you_mean


class TimmClassifier(nn.Module):
    """A timm network as ``features`` (images to pooled vectors) and ``head`` (vectors to logits).

    Args:
        name: Name of a timm model, e.g. ``"resnet18"`` or ``"vit_small_patch14_dinov2.lvd142m"``.
        num_classes: Number of logits.
        pretrained: Load timm's weights (downloads them on first use).
        in_chans: Channels of the images.
        drop_rate: Dropout before the head, in [0, 1).
        drop_path_rate: Stochastic depth, for models that have it.
        small_images: For images of 28 to 64 px: the first convolution becomes 3x3 with stride 1 and the pooling after
            it goes, as MedMNIST and CIFAR ResNets have it; unless ``pretrained``, all weights start as PyTorch draws
            them, as theirs do, not as timm does. Residual networks with one 7x7 stem convolution only.
        channels_last: Keep channels innermost in memory, which convolutions in bfloat16 or float16 are faster with.

    Shapes:
        image (B, in_chans, H, W) float to logits (B, num_classes).

    Raises:
        UserError: if timm has no such model, or ``small_images`` does not fit it.

    Example:
        >>> TimmClassifier("resnet10t", num_classes=5)(torch.zeros(2, 3, 32, 32)).shape
        torch.Size([2, 5])
    """

    def __init__(
        self,
        name: str,
        num_classes: int,
        pretrained: bool = False,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        small_images: bool = False,
        channels_last: bool = False,
    ) -> None:
        super().__init__()
        if not timm.is_model(name.split(".")[0]):
            near = did_you_mean(name, timm.list_models())
            raise UserError(f"timm has no model '{name}'{near}; timm.list_models() lists them.")
        options: dict[str, Any] = {"drop_path_rate": drop_path_rate} if drop_path_rate else {}
        self.features: Any = timm.create_model(name, pretrained=pretrained, in_chans=in_chans, num_classes=0, **options)
        if small_images:
            _adapt_stem(self.features, name)
            if not pretrained:
                self.features.apply(_redraw)
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Linear(getattr(self.features, "head_hidden_size", self.features.num_features), num_classes)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.to(memory_format=self.memory_format)  # pyright: ignore[reportCallIssue]

    def forward(self, image: Tensor) -> Tensor:
        """Return logits."""
        image = image.contiguous(memory_format=self.memory_format)
        return self.head(self.dropout(self.features(image)))


def _adapt_stem(network: nn.Module, name: str) -> None:
    first = getattr(network, "conv1", None)
    if not isinstance(first, nn.Conv2d) or not hasattr(network, "maxpool"):
        raise UserError(
            f"small_images needs a network with one stem convolution, which '{name}' is not; try 'resnet18'."
        )
    network.conv1 = nn.Conv2d(first.in_channels, first.out_channels, 3, stride=1, padding=1, bias=False)
    network.maxpool = nn.Identity()


def _redraw(layer: nn.Module) -> None:
    if isinstance(layer, nn.Conv2d | nn.BatchNorm2d | nn.Linear):
        layer.reset_parameters()

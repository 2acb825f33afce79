"""Several augmented views of one image, for methods that compare them."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from medbolt.core.data.base import ImageDataModule


class MultiView(nn.Module):
    """Apply several transforms to the same image; the batch gets them all as ``views``.

    ``image``, what a plain training step reads, is the first view, with its masks. The others get no masks.

    Args:
        transforms: One transform a view, each giving images of the same size; the same one twice draws twice.

    Shapes:
        image (3, H, W) uint8 to image (3, H', W') float and views (V, 3, H', W') float.

    Raises:
        ValueError: if there are fewer than two transforms.

    Example:
        >>> from medbolt.core import EvaluationTransform, StrongTransform
        >>> two = MultiView([EvaluationTransform(32), StrongTransform(32)])
        >>> sample = two({"image": torch.zeros(3, 40, 40, dtype=torch.uint8)})
        >>> sample["image"].shape, sample["views"].shape
        (torch.Size([3, 32, 32]), torch.Size([2, 3, 32, 32]))
    """

    def __init__(self, transforms: Sequence[nn.Module]) -> None:
        super().__init__()
        if len(transforms) < 2:
            raise ValueError(f"MultiView needs at least two transforms, got {len(transforms)}")
        self.transforms = nn.ModuleList(transforms)

    def forward(self, sample: dict[str, Any]) -> dict[str, Any]:
        """Return the first view's sample with ``views`` in it."""
        first, *others = self.transforms
        viewed = first(sample)
        rest = [transform({"image": sample["image"]})["image"] for transform in others]
        return viewed | {"views": torch.stack([view.as_subclass(torch.Tensor) for view in (viewed["image"], *rest)])}


def add_view(data: Any, view: Callable[[nn.Module], nn.Module]) -> Callable[[], None]:
    """Have a data module make a second view of each training image, unless it makes several already.

    Args:
        data: The data module; one that is not medbolt's is left alone.
        view: Makes the transform of the second view from the training transform, which makes the first.

    Returns:
        What gives the data module its own transform back.

    Example:
        >>> from medbolt.core import SyntheticFundusDataModule
        >>> data = SyntheticFundusDataModule(100, 8, 8, image_size=32, batch_size=2)
        >>> restore = add_view(data, lambda own: own)
        >>> next(iter(data.train_dataloader()))["views"].shape
        torch.Size([2, 2, 3, 32, 32])
        >>> restore()
        >>> "views" in next(iter(data.train_dataloader()))
        False
    """
    if not isinstance(data, ImageDataModule) or isinstance(data.train_transform, MultiView):
        return lambda: None
    own = data.train_transform
    data.train_transform = MultiView([own, view(own)])

    def restore() -> None:
        data.train_transform = own

    return restore

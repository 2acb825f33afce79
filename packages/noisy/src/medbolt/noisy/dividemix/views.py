"""Two views of each training image, also of a data module that makes one."""

from collections.abc import Callable
from typing import Any

from medbolt.core.data.base import ImageDataModule
from medbolt.core.data.multi_view import MultiView


def two_views(data: Any) -> Callable[[], None]:
    """Have a data module apply its training transform twice to each image, unless it makes views already.

    Returns:
        What gives it its own transform back. Data modules that are not medbolt's are left alone.

    Example:
        >>> from medbolt.core import SyntheticFundusDataModule
        >>> data = SyntheticFundusDataModule(100, 8, 8, image_size=32, batch_size=2)
        >>> restore = two_views(data)
        >>> next(iter(data.train_dataloader()))["views"].shape
        torch.Size([2, 2, 3, 32, 32])
        >>> restore()
        >>> "views" in next(iter(data.train_dataloader()))
        False
    """
    if not isinstance(data, ImageDataModule) or isinstance(data.train_transform, MultiView):
        return lambda: None
    own = data.train_transform
    data.train_transform = MultiView([own, own])

    def restore() -> None:
        data.train_transform = own

    return restore

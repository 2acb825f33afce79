"""A random view of an image that is ready for the network: geometry only, for its colours are normalised already."""

import torch
import torch.nn.functional as F
from torch import Tensor


def random_view(image: Tensor) -> Tensor:
    """Return an image (C, H, W) moved, scaled and turned a little, in half of the cases mirrored.

    Example:
        >>> random_view(torch.rand(3, 8, 8)).shape
        torch.Size([3, 8, 8])
    """
    mirror, angle, scale, *shift = torch.rand(5).mul(2).sub(1).tolist()
    turn = torch.tensor(angle * torch.pi / 12)
    rows = torch.stack([torch.stack([turn.cos(), -turn.sin()]), torch.stack([turn.sin(), turn.cos()])])
    rows = rows * (1 - 0.1 * (scale + 1))  # 0.8 to 1 of the sides
    rows[:, 0] *= 1 if mirror < 0 else -1
    where = torch.cat([rows, 0.1 * torch.tensor(shift)[:, None]], 1)[None].to(image.dtype)
    grid = F.affine_grid(where, [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]

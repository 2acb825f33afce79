"""The samples of smallest loss, of one process's batch or of all processes' together."""

import torch
from lightning.pytorch.strategies import Strategy
from torch import Tensor


def weights_of_smallest(
    losses: Tensor, fraction: float, candidates: Tensor | None = None, strategy: Strategy | None = None
) -> Tensor:
    """Return weights whose mean with the losses is the mean loss of the samples kept; the others' weight is 0.

    Of n candidates ``max(1, floor(fraction * n))`` are kept, those of smallest loss; of equal losses the earlier ones,
    and losses that are not finite come last. Without a candidate every sample counts alike.

    Args:
        losses: (B,) losses.
        fraction: What to keep, in [0, 1].
        candidates: (B,) bool, the samples to keep some of; by default all.
        strategy: Choose among the batches of all its processes, of which every one calls this. The weights are then
            such that the processes' mean gradient is that of one process with all the samples, in the order in which
            medbolt's data modules deal them out.

    Returns:
        (B,) float.

    Example:
        >>> weights_of_smallest(torch.tensor([3.0, 1.0, 2.0, 1.0]), fraction=0.5)
        tensor([0., 2., 0., 2.])
    """
    keys = losses.detach()
    keys = torch.where(keys.isfinite(), keys, torch.inf)
    if candidates is not None:
        keys = torch.where(candidates, keys, torch.nan)  # which sorts behind infinity
    keys, sizes = _dealt_out(keys, strategy)
    total = sum(sizes)
    present = torch.arange(len(keys), device=keys.device)[:, None] < torch.tensor(sizes, device=keys.device)
    count = torch.tensor(total, device=keys.device) if candidates is None else (~keys.isnan()).sum()
    keep = (fraction * count.double() + 1e-9).floor().clamp(min=1)  # 0.3 * 10 is to be 3, not 2.9999
    order = keys.flatten().argsort(stable=True)
    rank = torch.empty_like(order).scatter_(0, order, torch.arange(len(order), device=order.device)).view_as(keys)
    kept = torch.where(count > 0, rank < keep, present)  # by tensors: nothing waits for an accelerator
    mine = kept[: len(losses), strategy.global_rank if len(sizes) > 1 else 0]  # pyright: ignore[reportOptionalMemberAccess, reportAttributeAccessIssue]
    scale = len(sizes) * len(losses) / torch.where(count > 0, keep, max(total, 1))
    precision = torch.promote_types(losses.dtype, torch.float32)
    return mine.to(precision) * scale.to(precision)


def weighted(losses: Tensor, weights: Tensor) -> Tensor:
    """Return the losses times their weights; a loss of weight 0 is left out, even if it is not finite."""
    return torch.where(weights > 0, losses * weights, 0.0)


def _dealt_out(values: Tensor, strategy: Strategy | None) -> tuple[Tensor, list[int]]:
    """Return the values of all processes, (B, W), filled up with NaN, and how many each has."""
    if strategy is None or getattr(strategy, "world_size", 1) == 1:
        return values[:, None], [len(values)]
    sizes: list[int] = strategy.all_gather(torch.tensor([len(values)], device=values.device)).flatten().tolist()
    filled = torch.full((max(sizes),), torch.nan, dtype=values.dtype, device=values.device)
    filled[: len(values)] = values
    return strategy.all_gather(filled).T.contiguous(), sizes

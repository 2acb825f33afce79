"""Losses of a part of the batch: of rows drawn from it, and of mixtures of some of its samples."""

import math
from typing import Any

import torch
from torch import Tensor

from medbolt.core.errors import UserError
from medbolt.core.objective.callback import ObjectiveCallback
from medbolt.core.objective.mixup import drawn_weights
from medbolt.core.objective.second_view import network_logits
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.selection.labels import reduced


def drawn_rows(among: Tensor, number: int, share: float) -> tuple[Tensor, int]:
    """Return rows of a batch drawn without replacement, and how many of them are of those to draw among.

    There are two rows at least where the batch has them, for batch norm, and so that all processes make the same calls:
    rows that were not to be drawn fill up. With ``share=1`` nothing is drawn, and rows keep their order.

    Args:
        among: (B,) bool.
        number: How many they are.
        share: What share of them to draw, rounded up, in (0, 1]; two at least.

    Example:
        >>> drawn_rows(torch.tensor([False, True, False]), number=1, share=1.0)
        (tensor([1, 0]), 1)
    """
    # 0.1 * 30 is to be 3, not 3.0000000000000004; of one row there is nothing to mix
    number = min(max(math.ceil(share * number - 1e-9), 2), number)
    key = among.float()
    if share < 1:
        key = key + torch.rand(len(among)).to(key)
    return key.argsort(descending=True, stable=True)[: max(number, 2)], number


def rows_of(values: list[Any], rows: Tensor, size: int) -> list[Any]:
    """Return the rows of what the network was given, of all that has a row for each of ``size`` samples."""
    return [v[rows] if isinstance(v, Tensor) and v.ndim and len(v) == size else v for v in values]


def spread(losses: Tensor, rows: Tensor, size: int) -> Tensor:
    """Return losses of rows as (B,) losses, 0 for the others, whose mean is that of the rows.

    Example:
        >>> spread(torch.tensor([1.0, 3.0]), torch.tensor([3, 0]), size=4)
        tensor([6., 0., 0., 2.])
    """
    return losses.new_zeros(size).index_add(0, rows, losses * (size / len(rows)))


def losses_of_rows(step: TrainingStep, logits: Tensor, rows: Tensor, target: Tensor | None = None) -> Tensor:
    """Return the losses of a part of the batch, (n,).

    Args:
        step: The step.
        logits: (n, ...) of the rows.
        rows: (n,) int64.
        target: (B, ...) instead of the step's.

    Raises:
        UserError: if an objective further inward has losses of whole batches only.
    """
    target = step.target if target is None else target
    try:
        return step.loss(logits=logits, target=target[rows])
    except UserError as error:
        raise UserError(
            f"DISC asks for losses of a part of the batch, which another method cannot give ({error}); in the list of "
            "callbacks put DISC before it."
        ) from error


def mixed_losses(
    callback: ObjectiveCallback,
    step: TrainingStep,
    views: tuple[Tensor, ...],
    others: list[Any],
    target: Tensor,
    kept: Tensor,
    alpha: float,
    share: float,
) -> Tensor:
    """Return (B,) MixUp losses of the samples kept, 0 for the others, whose mean is that of all processes' kept.

    Args:
        callback: Whose network to call.
        step: The step.
        views: (B, ...) images; each view is mixed within itself, and the losses of all are added.
        others: What else the network is given.
        target: (B, ...) labels of the samples.
        kept: (B,) bool, the samples to mix among each other.
        alpha: Parameter of the Beta distribution of the weight; the larger part is the sample's own.
        share: Of the samples kept, how many to mix.
    """
    trainer: Any = step.module.trainer
    size, number = len(kept), int(kept.sum())
    scale = size * trainer.world_size / reduced(trainer, kept.sum(), "sum").clamp(min=1)
    losses: list[Tensor] = []
    for view in views:
        rows, mixed = drawn_rows(kept, number, share)
        partner = torch.cat([torch.randperm(mixed), torch.arange(mixed, len(rows))]).to(rows.device)
        weight = drawn_weights(alpha, alpha, 1)
        weight = float(weight.maximum(1 - weight))
        images, *more = rows_of([view, *others], rows, size)
        logits = network_logits(callback, step, weight * images + (1 - weight) * images[partner], *more)
        own, partners = losses_of_rows(step, logits, rows, target), losses_of_rows(step, logits, rows[partner], target)
        share_of_kept = kept[rows] * (scale * number / max(mixed, 1))
        mixed_loss = (weight * own + (1 - weight) * partners) * share_of_kept
        losses.append(mixed_loss.new_zeros(size).index_add(0, rows, mixed_loss))
    return torch.stack(losses).sum(0)

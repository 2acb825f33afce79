"""What every loss shares: the reduction, the probability of the target, and being told what the data hold."""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from medbolt.core.cross_entropy import cross_entropy, require_classes
from medbolt.core.errors import UserError

Reduction = Literal["mean", "sum", "none"]
_OF_ONE_CLASS = (nn.CrossEntropyLoss, nn.NLLLoss, nn.MultiMarginLoss)
_NONE = -1e4  # the logarithm of nothing, which is lost beside any share


def reduce(losses: Tensor, reduction: str) -> Tensor:
    """Reduce per-sample losses.

    Args:
        losses: Losses of any shape.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.

    Raises:
        ValueError: for another reduction.

    Example:
        >>> reduce(torch.tensor([1.0, 3.0]), "mean")
        tensor(2.)
    """
    if reduction == "mean":
        return losses.mean()
    if reduction == "sum":
        return losses.sum()
    if reduction == "none":
        return losses
    raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}")


def target_probability(logits: Tensor, target: Tensor, log: bool = False) -> Tensor:
    r"""Return the probability that softmax gives the target, in float32, or float64 where the logits are.

    .. math:: p_{i,y_i} \quad\text{or, for soft targets,}\quad \sum_c t_{ic}\, p_{ic}

    Args:
        logits: (B, C, ...) float of any precision.
        target: (B, ...) int64 class indices, or (B, C, ...) float probabilities.
        log: Return the logarithm, computed without leaving log space.

    Returns:
        (B, ...) float32 or float64.

    Example:
        >>> target_probability(torch.zeros(1, 4), torch.tensor([2]))
        tensor([0.2500])
    """
    if target.is_floating_point():
        require_classes(logits)
        log_p = logits.log_softmax(1, dtype=torch.promote_types(logits.dtype, torch.float32))
        # clamped, for where all of a sample's are 0 the gradient would be NaN
        log_target = (log_p + target.to(log_p).log().clamp(min=_NONE)).logsumexp(1)
    else:
        log_target = -cross_entropy(logits, target)
    return log_target if log else log_target.exp()


def tell_class_counts(criterion: nn.Module, class_counts: Sequence[int], num_samples: int | None = None) -> None:
    """Tell every loss in a criterion that asks for them the training samples of each class, and of all.

    A loss asks by having a method ``set_class_counts``, and for their number by ``set_num_samples``, which is called
    after it; one that was given counts by the user ignores the calls.

    Args:
        criterion: A loss, or a module with losses in it.
        class_counts: Training samples of each class; present labels of each class where samples have several.
        num_samples: Training samples, where it is known: not the sum of the counts where samples have several labels.

    Example:
        >>> tell_class_counts(nn.CrossEntropyLoss(), [10, 3])  # asks for nothing
    """
    for module in criterion.modules():
        if callable(tell := getattr(module, "set_class_counts", None)):
            tell(class_counts)
        if num_samples is not None and callable(tell := getattr(module, "set_num_samples", None)):
            tell(num_samples)


def require_several_labels(criterion: nn.Module) -> None:
    """Refuse a criterion for multi-label data that is a loss for one class a sample.

    A loss says so by a true attribute ``one_class_a_sample``; torch's are known.

    Raises:
        UserError: naming the loss.

    Example:
        >>> require_several_labels(nn.BCEWithLogitsLoss())
    """
    for module in criterion.modules():
        if isinstance(module, _OF_ONE_CLASS) or getattr(module, "one_class_a_sample", False):
            raise UserError(
                f"{type(module).__name__} compares classes of which a sample has one, and would not learn from samples "
                "without findings; for task='multilabel' take a loss of each label, such as torch.nn.BCEWithLogitsLoss "
                "or medbolt.longtail's AsymmetricLoss, DistributionBalancedLoss, TwoWayLoss or "
                "WeightedBinaryCrossEntropyLoss."
            )

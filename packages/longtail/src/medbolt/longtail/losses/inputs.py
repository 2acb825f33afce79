"""Logits and targets in the form that the formulas are written in."""

import torch
from torch import Tensor

from medbolt.core.errors import UserError


def precise(values: Tensor) -> Tensor:
    """Return values in float32 at least: half precision is raised, float64 is kept.

    Example:
        >>> precise(torch.ones(1, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return values if values.dtype in (torch.float32, torch.float64) else values.float()


def class_logits(logits: Tensor, loss: object) -> Tensor:
    """Return logits of classes in float32 at least.

    Raises:
        UserError: if there is not one column a class.

    Example:
        >>> class_logits(torch.ones(2, 3, dtype=torch.bfloat16), "a loss").dtype
        torch.float32
    """
    if logits.ndim != 2:
        raise UserError(
            f"{type(loss).__name__} needs logits of shape (B, C), one column a class, but got {tuple(logits.shape)}; a "
            "network with one output for two classes needs two: ClassificationTask(task='multiclass', num_classes=2)."
        )
    return precise(logits)


def target_matrix(target: Tensor, logits: Tensor) -> Tensor:
    """Return class indices as one-hot rows, and probabilities or multi-hot rows as they are, like the logits.

    Args:
        target: (B,) int64 or (B, C).
        logits: (B, C), whose number of classes and dtype the result takes.

    Example:
        >>> target_matrix(torch.tensor([1]), torch.zeros(1, 3))
        tensor([[0., 1., 0.]])
    """
    if target.ndim > 1:
        return target.to(logits)
    return torch.zeros_like(logits, requires_grad=False).scatter_(1, target[:, None], 1.0)


def two_columns(scores: Tensor, probability: bool) -> Tensor:
    """Return scores with one column a class: a single score a sample is that of the second of two classes.

    Args:
        scores: (B, C), which come back as they are, or (B,) or (B, 1).
        probability: Whether they are probabilities, and not logits.

    Example:
        >>> two_columns(torch.tensor([0.75, 0.25]), probability=True)
        tensor([[0.2500, 0.7500],
                [0.7500, 0.2500]])
    """
    if scores.ndim == 2 and scores.shape[1] > 1:
        return scores
    scores = scores.flatten()
    return torch.stack([1 - scores if probability else -scores, scores], 1)


def hard(target: Tensor, asker: object, remedy: str = "leave out what mixes labels, or take another loss") -> Tensor:
    """Return the target if it holds class indices.

    Args:
        target: The target.
        asker: The loss or callback, for the message.
        remedy: What to do about probabilities or labels, (B, C).

    Raises:
        UserError: for targets that the formula is not defined for.

    Example:
        >>> hard(torch.tensor([2]), "a loss")
        tensor([2])
    """
    if target.ndim == 1 and not target.is_floating_point():
        return target
    needs = f"{type(asker).__name__} is defined for class indices, (B,) int64, but got"
    if target.ndim == 1:
        raise UserError(
            f"{needs} floats, (B,), as a task of one logit has them; take two logits: "
            "ClassificationTask(task='multiclass', num_classes=2)."
        )
    raise UserError(f"{needs} soft targets or labels of shape {tuple(target.shape)}; {remedy}.")


def require_several_outputs(outputs: int, asker: object) -> None:
    """Refuse a layer of one output, which has no classes to compare.

    Raises:
        UserError: if there is one output.

    Example:
        >>> require_several_outputs(2, "a head")
    """
    if outputs < 2:
        raise UserError(
            f"{type(asker).__name__} compares classes, but the network has one output; two classes need two outputs: "
            "ClassificationTask(task='multiclass', num_classes=2)."
        )


def hidden(logits: Tensor, where: Tensor) -> Tensor:
    """Return logits whose marked entries count for nothing in a softmax, and for 0 where a target of 0 meets them.

    Example:
        >>> hidden(torch.zeros(1, 2), torch.tensor([[False, True]])).softmax(1)
        tensor([[1., 0.]])
    """
    return logits.masked_fill(where, torch.finfo(logits.dtype).min / 4)

"""Cross entropy of adjusted logits, sample by sample, in fewer passes over memory than torch needs for plain ones."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    margin: Tensor | None = None,
) -> Tensor:
    r"""Return cross entropy of logits that are scaled, shifted and, at the target, held back by a margin.

    .. math:: \ell_i = -\log \mathrm{softmax}(a \odot z_i + b - m_i e_{y_i})_{y_i}

    Most losses that are functions of the target's probability are functions of this. For class indices the adjusted
    logits become, in place, all that the gradient needs.

    Args:
        logits: (B, C, ...) float of any precision.
        target: (B, ...) int64 class indices, or (B, C, ...) float probabilities.
        shift: What is added, broadcastable to the logits, e.g. (C,) for logits (B, C).
        scale: What multiplies the logits, likewise.
        margin: (B, ...) what the target's logit is lowered by; for class indices only.

    Returns:
        (B, ...) float32, or float64 where the logits are.

    Raises:
        ValueError: if a margin meets soft targets.

    Cost: one softmax. Gradients of gradients, and of adjustments that require them, are right but slower.

    Example:
        >>> prior = torch.tensor([0.75, 0.25])
        >>> cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), shift=prior.log()).exp()  # 4/3 and 4
        tensor([1.3333, 4.0000])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if target.is_floating_point():
        if margin is not None:
            raise ValueError("a margin needs class indices as targets")
        return F.cross_entropy(_adjusted(logits, shift, scale), target.to(logits), reduction="none")
    if any(part is not None and part.requires_grad for part in (shift, scale, margin)):
        return _plain(logits, target, shift, scale, margin)
    return _CrossEntropy.apply(logits, target, shift, scale, margin)  # pyright: ignore[reportReturnType]


class _CrossEntropy(torch.autograd.Function):
    """Keeps the exponentials of the adjusted logits and their sums for the gradient."""

    # torch binds the arguments of a forward apart from its setup_context by their signature, which takes longer than
    # the formula; so the context is set up in here, at the price of torch.func
    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        logits, target, shift, scale, margin = inputs
        values = _adjusted(logits, shift, scale)
        values = values.clone() if values is logits else values
        index = target.unsqueeze(1)
        if margin is not None:
            values.scatter_add_(1, index, -margin.unsqueeze(1).to(values))
        values -= values.amax(1, keepdim=True)
        own = values.gather(1, index)
        total = values.exp_().sum(1, keepdim=True)
        ctx.save_for_backward(*inputs, values, total)
        return (total.log() - own).squeeze(1)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None, None]:
        logits, target, shift, scale, margin, exponentials, total = ctx.saved_tensors
        gradient = gradients[0].unsqueeze(1)
        if torch.is_grad_enabled():  # create_graph=True: what is kept has no graph, so it is made anew from the logits
            p = _with_margin(_adjusted(logits, shift, scale), target, margin).softmax(1)
            result = (p - _one_hot(target, logits)) * gradient
            return (result if scale is None else result * scale), None, None, None, None
        result = exponentials * (gradient / total)
        result.scatter_add_(1, target.unsqueeze(1), -gradient)
        return (result if scale is None else result.mul_(scale)), None, None, None, None


def _adjusted(logits: Tensor, shift: Tensor | None, scale: Tensor | None) -> Tensor:
    if scale is None:
        return logits if shift is None else logits + shift
    return logits * scale if shift is None else torch.addcmul(shift, logits, scale)


def _with_margin(logits: Tensor, target: Tensor, margin: Tensor | None) -> Tensor:
    if margin is None:
        return logits
    return logits.scatter_add(1, target.unsqueeze(1), -margin.unsqueeze(1).to(logits))


def _one_hot(target: Tensor, logits: Tensor) -> Tensor:
    return torch.zeros_like(logits).scatter_(1, target.unsqueeze(1), 1.0)


def _plain(logits: Tensor, target: Tensor, shift: Tensor | None, scale: Tensor | None, margin: Tensor | None) -> Tensor:
    adjusted = _with_margin(_adjusted(logits, shift, scale), target, margin)
    return F.cross_entropy(adjusted, target, reduction="none")

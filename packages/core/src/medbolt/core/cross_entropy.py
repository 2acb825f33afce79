"""Cross entropy of adjusted logits, which many losses are functions of."""

import torch
import torch.nn.functional as F
from torch import Tensor

from medbolt.core.errors import UserError

_PRECISE = (torch.float32, torch.float64)


def require_classes(logits: Tensor) -> None:
    """Refuse logits that are not those of several classes, of which a softmax would always be sure.

    Args:
        logits: (B, C, ...).

    Raises:
        UserError: if there are fewer than two columns.

    Example:
        >>> require_classes(torch.zeros(8, 2))
    """
    if logits.ndim < 2 or logits.shape[1] < 2:
        raise UserError(
            f"the loss compares classes and needs logits of shape (B, C), C at least 2, but got {tuple(logits.shape)}; "
            "give two classes two outputs (ClassificationTask(task='multiclass', num_classes=2)), or take a loss of "
            "single logits such as torch.nn.BCEWithLogitsLoss."
        )


def cross_entropy(
    logits: Tensor,
    target: Tensor,
    shift: Tensor | None = None,
    scale: Tensor | None = None,
    margin: Tensor | None = None,
    weight: Tensor | None = None,
    reduction: str = "none",
) -> Tensor:
    r"""Return cross entropy of logits that are scaled, shifted and, at the target, held back by a margin.

    .. math:: \ell_i = -w_{y_i} \log \mathrm{softmax}(a \odot z_i + b - m_i e_{y_i})_{y_i}

    Args:
        logits: (B, C, ...) float of any precision.
        target: (B, ...) int64 class indices, or (B, C, ...) float probabilities, each of which has its class's weight.
        shift: What is added, broadcastable to the logits, e.g. (C,) for logits (B, C).
        scale: What multiplies the logits, likewise.
        margin: (B, ...) what the target's logit is lowered by; for class indices only.
        weight: (C,) what the loss of each class is multiplied by.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``. The mean is over samples; the weights do not divide it, unlike
            torch's. Without weights it leaves out targets of -100, as torch does. Reducing here spares the graph of the
            single losses, a tenth of the time.

    Returns:
        () or (B, ...), float32, or float64 where the logits are.

    Raises:
        ValueError: if a margin meets soft targets.
        UserError: if there is one column.

    Cost: one softmax.

    Example:
        >>> prior = torch.tensor([0.75, 0.25])
        >>> cross_entropy(torch.zeros(2, 2), torch.tensor([0, 1]), shift=prior.log()).exp()  # 4/3 and 4
        tensor([1.3333, 4.0000])
    """
    require_classes(logits)
    if logits.dtype not in _PRECISE:
        logits = logits.float()
    if scale is not None:
        logits = logits * scale if shift is None else torch.addcmul(shift, logits, scale)
    elif shift is not None:
        logits = logits + shift
    if target.is_floating_point():
        if margin is not None:
            raise ValueError("a margin needs class indices as targets")
        target = target.to(logits)
    elif margin is not None:
        logits = logits.scatter_add(1, target.unsqueeze(1), -margin.unsqueeze(1).to(logits))
    if weight is not None and reduction == "mean":
        # of the weights, not of the sum, which would be one more operation to differentiate
        weight = weight / (logits.numel() // logits.shape[1])
        return F.cross_entropy(logits, target, weight, reduction="sum")
    return F.cross_entropy(logits, target, weight, reduction=reduction)

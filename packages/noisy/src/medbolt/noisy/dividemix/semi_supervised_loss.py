"""The loss of one network of DivideMix on a batch of mixed images."""

import math
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from medbolt.noisy.losses.symmetric_cross_entropy import SymmetricCrossEntropyLoss
from medbolt.noisy.losses.targets import expected, log_probability

SupervisedLoss = Literal["ce", "sce"]


class SemiSupervisedLoss(nn.Module):
    """Cross entropy of the labelled samples, squared error of the others, and a pull of the mean prediction to a prior.

    Args:
        supervised: ``"ce"``, cross entropy with the soft target; ``"sce"``, symmetric cross entropy with its most
            probable class.
        alpha: Weight of cross entropy in ``"sce"``.
        beta: Weight of reverse cross entropy in ``"sce"``.

    Shapes:
        logits (B, C) and target (B, C) float; labelled (B,) bool; counts (2,) float, what the sums over the labelled
        and over the other samples are divided by; prior (C,) float; output ().

    Example:
        >>> loss, target = SemiSupervisedLoss(), torch.eye(2)
        >>> labelled, counts = torch.tensor([True, False]), torch.tensor([1.0, 1.0])
        >>> loss(torch.zeros(2, 2), target, labelled, counts, unlabelled_weight=4.0)  # log 2 + 4 * 0.25
        tensor(1.6931)
    """

    def __init__(self, supervised: SupervisedLoss = "ce", alpha: float = 1.0, beta: float = 1.0) -> None:
        super().__init__()
        if supervised not in ("ce", "sce"):
            raise ValueError(f"supervised_loss must be 'ce' or 'sce', got {supervised!r}")
        self.symmetric = SymmetricCrossEntropyLoss(alpha, beta, reduction="none") if supervised == "sce" else None

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        labelled: Tensor,
        counts: Tensor,
        unlabelled_weight: float,
        prior: Tensor | None = None,
    ) -> Tensor:
        """Return the loss; a term without samples is 0."""
        log_p = log_probability(logits)
        supervised = -expected(log_p, target) if self.symmetric is None else self.symmetric(logits, target.argmax(1))
        squared = (log_p.exp() - target).square().mean(1)
        sums = ((supervised * labelled).sum(), (squared * ~labelled).sum())
        first, second = (total / count.clamp(min=1e-6) for total, count in zip(sums, counts, strict=True))
        loss = first + unlabelled_weight * second
        return loss if prior is None else loss + prior_penalty(log_p, prior)


def prior_penalty(log_p: Tensor, prior: Tensor) -> Tensor:
    r"""Return the divergence :math:`\sum_c \pi_c \log(\pi_c / \bar p_c)` of the batch's mean prediction from a prior.

    Args:
        log_p: (B, C) log-probabilities.
        prior: (C,) probabilities, zeros allowed.

    Example:
        >>> prior_penalty(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1.0, 0.0]))  # log 2
        tensor(0.6931)
    """
    log_mean = log_p.logsumexp(0) - math.log(len(log_p))
    return F.kl_div(log_mean, prior.to(log_mean), reduction="sum")

"""Which labels the nearest samples agree with."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

_CHUNK = 1024  # rows whose similarities to all samples are in memory at a time


def balanced_votes(features: Tensor, label: Tensor, num_classes: int, neighbours: int) -> Tensor:
    r"""Return what the nearest other samples say of each sample, as if all classes were equally frequent.

    .. math:: v_{ic} = \frac{1}{n_c} \sum_{j \in N_i} \max(\cos(f_i, f_j), 0)\, [y_j = c]

    Args:
        features: (N, D) float; compared by their cosine.
        label: (N,) int64; samples of label -1 have no vote.
        num_classes: Number of classes.
        neighbours: How many of the other samples with a label vote: those of largest cosine, or all there are.

    Returns:
        (N, C) float32, not negative.

    Example:
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
        >>> balanced_votes(features, torch.tensor([0, 0, 1, 1]), num_classes=2, neighbours=3)[3]
        tensor([1., 0.])
    """
    features = normalize(features.float(), dim=1)
    voters = label >= 0
    candidates, named = features[voters], label[voters]
    votes = features.new_zeros(len(features), num_classes)
    place = torch.full_like(label, -1)  # of a sample among the candidates
    place[voters] = torch.arange(len(named), device=label.device)
    for rows in torch.arange(len(features), device=label.device).split(_CHUNK):
        cosine = features[rows] @ candidates.T
        own = place[rows]
        cosine[(own >= 0).nonzero().flatten(), own[own >= 0]] = -1.0  # nobody votes for oneself
        nearest, who = cosine.topk(min(neighbours, len(named)), dim=1)
        votes[rows] = votes[rows].scatter_add(1, named[who], nearest.clamp(min=0))
    return votes / torch.bincount(named, minlength=num_classes).clamp(min=1)


def relabel_and_select(
    p: Tensor, features: Tensor, given: Tensor, relabel_threshold: float, select_threshold: float, neighbours: int
) -> tuple[Tensor, Tensor]:
    """Return labels replaced where the network is sure, and which samples their neighbours confirm.

    Args:
        p: (N, C) probabilities.
        features: (N, D).
        given: (N,) int64 labels, -1 where unknown.
        relabel_threshold: A label becomes the most probable class where that is more probable than this.
        select_threshold: A label is confirmed where its vote is at least this share of the largest vote.
        neighbours: See :func:`balanced_votes`.

    Returns:
        (N,) int64 on the CPU, the new label where there is one, else -1; and (N,) bool on the CPU. All samples of known
        label count as confirmed where none is; else those whose numbers are not finite never do.

    Example:
        >>> p = torch.tensor([[0.5, 0.5], [0.6, 0.4], [0.5, 0.5], [0.02, 0.98]])
        >>> features = torch.tensor([[1.0, 0.0], [1.0, 0.1], [1.0, 0.5], [0.0, 1.0]])
        >>> relabel_and_select(p, features, torch.tensor([0, 0, 1, 0]), 0.9, 1.0, neighbours=2)
        (tensor([-1, -1, -1,  1]), tensor([ True,  True, False,  True]))
    """
    known, finite = given >= 0, features.isfinite().all(1) & p.isfinite().all(1)
    confidence, guess = p.max(1)
    changed = known & finite & (confidence > relabel_threshold) & (guess != given)
    label = torch.where(changed, guess, given)
    votes = balanced_votes(features.nan_to_num(0, 0, 0), label.where(finite, -1), p.shape[1], neighbours)
    own = votes.gather(1, label.clamp(min=0)[:, None]).squeeze(1)
    kept = (own >= select_threshold * votes.amax(1)) & known & finite  # a sample nobody votes on keeps its label
    kept = kept if kept.any() else known
    return torch.where(changed, guess, -1).cpu(), kept.cpu()


def class_weights(label: Tensor, kept: Tensor, given: Tensor, num_classes: int, balanced: bool) -> Tensor:
    """Return (N,) weights of mean 1 over the samples of known label, 0 for those not kept.

    Args:
        label: (N,) int64 new labels, -1 where the given one stands.
        kept: (N,) bool.
        given: (N,) int64 labels, -1 where unknown: such a sample has weight 1.
        num_classes: Number of classes.
        balanced: Whether the weights of each class that is kept have the same sum.

    Example:
        >>> given, kept = torch.tensor([0, 0, 1, 1]), torch.tensor([True, True, True, False])
        >>> class_weights(torch.full((4,), -1), kept, given, num_classes=2, balanced=True)
        tensor([1., 1., 2., 0.])
    """
    label = torch.where(label >= 0, label, given)
    counts = torch.bincount(label[kept], minlength=num_classes)
    sizes = counts * (counts > 0).sum() if balanced else counts.sum().expand(num_classes)
    share = (given >= 0).sum() / sizes.clamp(min=1)
    return torch.where(given < 0, 1.0, torch.where(kept, share[label.clamp(min=0)], 0.0))

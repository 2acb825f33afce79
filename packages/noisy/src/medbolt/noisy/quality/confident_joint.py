"""Confident learning: how often each class is labelled as each other one, and which samples are."""

from dataclasses import dataclass

import torch
from torch import Tensor

_ROUNDING = 1e-6  # of probabilities in float32, which may lie just below their own mean


@dataclass(frozen=True)
class ClassPair:
    """One kind of mistake.

    Args:
        given: Class that the samples are labelled as.
        true: Class that they appear to be.
        samples: Estimated number of them.
        share: The same as a share of all samples.
        share_of_given: The same as a share of the samples labelled ``given``.

    Example:
        >>> ClassPair(given=0, true=2, samples=12.0, share=0.06, share_of_given=0.2).true
        2
    """

    given: int
    true: int
    samples: float
    share: float
    share_of_given: float


@dataclass(frozen=True, eq=False)
class ConfidentJoint:
    r"""Estimate of the joint distribution of given and true labels.

    .. math:: Q_{ij} = \frac{1}{N} \frac{C_{ij}}{\sum_k C_{ik}} N_i, \qquad
        T_{ji} = \frac{Q_{ij}}{\sum_k Q_{kj}}, \qquad \rho = 1 - \operatorname{tr} Q

    Each row of the counts C is scaled to the number of samples with that label. Where a class has labels but no sample
    that confidently deserves it, one is counted, so that no row is empty.

    Args:
        counts: (K, K) int64, C: entry [i, j] counts the samples labelled i that confidently belong to class j.
        label_counts: (K,) int64: samples labelled as each class.

    Source: Northcutt et al., arXiv 1911.00068, eq. 1 to 3. cleanlab rounds the scaled counts to whole samples; here
    they are not rounded.

    Example:
        >>> estimate = ConfidentJoint(torch.tensor([[6, 2], [0, 4]]), torch.tensor([12, 4]))
        >>> estimate.joint, round(estimate.noise_rate, 4)
        (tensor([[0.5625, 0.1875],
                [0.0000, 0.2500]], dtype=torch.float64), 0.1875)
        >>> estimate.transition[1]  # samples of class 1 are labelled 0, 1
        tensor([0.4286, 0.5714], dtype=torch.float64)
    """

    counts: Tensor
    label_counts: Tensor

    @property
    def joint(self) -> Tensor:
        """(K, K) float64, Q: entry [i, j] is the share of samples labelled i whose true class is j."""
        counts = self.counts.double()
        counts.diagonal().clamp_(min=1)
        return counts * (self.label_counts / counts.sum(1) / self.label_counts.sum()).unsqueeze(1)

    @property
    def noise_rate(self) -> float:
        """Estimated share of wrong labels."""
        return max(0.0, 1 - float(self.joint.diagonal().sum()))

    @property
    def transition(self) -> Tensor:
        """(K, K) float64, T: entry [j, i] is the probability that class j is labelled i; a row each true class.

        The row of a class that no sample seems to belong to is that of right labels.
        """
        return _normalized(self.joint.T)

    @property
    def inverse(self) -> Tensor:
        """(K, K) float64: entry [i, j] is the probability that a sample labelled i belongs to j; a row each label."""
        return _normalized(self.joint)

    def pairs(self) -> list[ClassPair]:
        """Return the mistakes that occur, most frequent first."""
        joint, inverse, size = self.joint, self.inverse, int(self.label_counts.sum())
        wrong = joint.clone().fill_diagonal_(0)
        order = wrong.flatten().argsort(descending=True, stable=True)[: int((wrong > 0).sum())]
        places = [divmod(place, len(joint)) for place in order.tolist()]
        return [ClassPair(i, j, size * float(joint[i, j]), float(joint[i, j]), float(inverse[i, j])) for i, j in places]


def confident_joint(labels: Tensor, probabilities: Tensor) -> ConfidentJoint:
    r"""Count which class samples of each label confidently belong to.

    .. math:: C_{ij} = |\{x : \tilde y = i, \; \hat y = j\}|, \quad
        \hat y = \arg\max_{k : p_k \ge t_k} p_k, \quad t_k = \operatorname{mean}_{\tilde y = k} p_k

    Args:
        labels: (N,) int64 given labels.
        probabilities: (N, K) float, out of sample: of a model that was not trained on the sample.

    Raises:
        ValueError: if there is no sample, or shapes or labels do not fit.

    State, cost: none; two passes over the probabilities.

    Source: Northcutt et al., arXiv 1911.00068, eq. 1. A class without labels has no threshold, so no sample confidently
    belongs to it.

    Example:
        >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
        >>> confident_joint(torch.tensor([0, 0, 0, 1]), p).counts
        tensor([[2, 1],
                [0, 1]])
    """
    classes = probabilities.shape[1]
    found = confident_class(labels, probabilities)
    counts = torch.bincount((labels * classes + found)[found >= 0], minlength=classes**2).view(classes, classes)
    return ConfidentJoint(counts, torch.bincount(labels, minlength=classes))


def thresholds(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return the mean probability of each class among the samples labelled so, (K,) float64; infinite without any.

    Example:
        >>> thresholds(torch.tensor([0, 0]), torch.tensor([[0.5, 0.5], [1.0, 0.0]]))
        tensor([0.7500,    inf], dtype=torch.float64)
    """
    _check(labels, probabilities)
    own = probabilities.double().gather(1, labels.unsqueeze(1)).squeeze(1)
    counts = torch.bincount(labels, minlength=probabilities.shape[1])
    sums = torch.zeros_like(counts, dtype=torch.float64).index_add_(0, labels, own)
    return (sums / counts).where(counts > 0, torch.inf)


def confident_class(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return the class each sample confidently belongs to, (N,) int64; -1 for none.

    It is the most probable of the classes whose probability reaches the class's threshold.

    Example:
        >>> confident_class(torch.tensor([0, 0, 1]), torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8]]))
        tensor([ 0, -1,  1])
    """
    reached = probabilities.double() >= thresholds(labels, probabilities) - _ROUNDING
    return probabilities.where(reached, -1).argmax(1).where(reached.any(1), -1)


def label_issues(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return which labels confident learning takes for wrong, (N,) bool.

    Those off the diagonal of the confident joint, unless the given label is the most probable class after all.

    Args:
        labels: (N,) int64 given labels.
        probabilities: (N, K) float, out of sample.

    Source: Northcutt et al., arXiv 1911.00068, section 3.2, method "C confident joint"; the exception is cleanlab's.

    Example:
        >>> p = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8]])
        >>> label_issues(torch.tensor([0, 0, 0, 1]), p)
        tensor([False, False,  True, False])
    """
    found = confident_class(labels, probabilities)
    return (found >= 0) & (found != labels) & (probabilities.argmax(1) != labels)


def self_confidence(labels: Tensor, probabilities: Tensor) -> Tensor:
    """Return the probability of each given label, (N,) in [0, 1]; low is suspicious.

    Example:
        >>> self_confidence(torch.tensor([1]), torch.tensor([[0.75, 0.25]]))
        tensor([0.2500])
    """
    _check(labels, probabilities)
    return probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)


def normalized_margin(labels: Tensor, probabilities: Tensor) -> Tensor:
    r"""Return the lead of each given label over the best other class, (N,) in [0, 1]; low is suspicious.

    .. math:: \tfrac12 (p_{\tilde y} - \max_{k \ne \tilde y} p_k + 1)

    Example:
        >>> normalized_margin(torch.tensor([1]), torch.tensor([[0.75, 0.25]]))
        tensor([0.2500])
    """
    own = self_confidence(labels, probabilities)
    return (own - probabilities.scatter(1, labels.unsqueeze(1), -1).amax(1) + 1) / 2


def confidence_weighted_entropy(labels: Tensor, probabilities: Tensor) -> Tensor:
    r"""Return a score that is low where the prediction is sharp or the given label improbable, (N,) in [0, 1].

    .. math:: \frac{\log(1 + w)}{w}, \quad w = \frac{-\sum_k p_k \log p_k}{p_{\tilde y} \log K}

    The ratio w is large for improbable labels; the logarithm maps it to (0, 1].

    Source: cleanlab's score of this name; the mapping to [0, 1] was found to equal cleanlab 2.9's in a test.

    Example:
        >>> confidence_weighted_entropy(torch.tensor([0, 1]), torch.tensor([[0.9, 0.1], [0.9, 0.1]]))
        tensor([0.8049, 0.3707])
    """
    own = self_confidence(labels, probabilities)
    entropy = torch.special.entr(probabilities).sum(1) / torch.tensor(probabilities.shape[1]).log()
    ratio = (entropy / own.clamp(min=_ROUNDING)).clamp(min=_ROUNDING)
    return ratio.log1p() / ratio


def _normalized(rows: Tensor) -> Tensor:
    """Divide rows by their sums; an empty one becomes that of the identity."""
    sums = rows.sum(1, keepdim=True)
    return torch.where(sums > 0, rows / sums, torch.eye(len(rows), dtype=rows.dtype, device=rows.device))


def _check(labels: Tensor, probabilities: Tensor) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            f"labels must be (N,) and probabilities (N, K) of at least one sample, got {tuple(labels.shape)} and "
            f"{tuple(probabilities.shape)}"
        )
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"labels must be 0 to {probabilities.shape[1] - 1}, got {int(labels.min())} to {labels.max()}")

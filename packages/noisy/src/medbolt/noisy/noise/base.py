"""What every noise model is: probabilities of the label a sample gets, and draws that depend on its name only."""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from medbolt.core.data.dataset import Images
from medbolt.core.data.splits import seeded_keys
from medbolt.core.errors import UserError
from medbolt.core.randomness import derive_seed
from medbolt.noisy.noise.report import class_means, mislabelled_class

_LABEL, _RATE = 0, 1


@dataclass(frozen=True, eq=False)
class Labelled:
    """Samples as a noise model sees them.

    Args:
        targets: (N,) int64 clean classes.
        num_classes: Number of classes K.
        ids: N names.
        seed: Seed of the noise.
        images: N pictures, where there are any.
        drawn_by: N names whose draws are shared, the ids by default.
    """

    targets: Tensor
    num_classes: int
    ids: Sequence[str]
    seed: int
    images: Images | None = None
    drawn_by: Sequence[str] | None = None

    @property
    def pictures(self) -> Images:
        """The pictures, for a noise model that cannot do without."""
        if self.images is None:
            raise UserError("this noise depends on the images; pass images=..., one picture a label.")
        return self.images

    def uniforms(self, stream: int) -> Tensor:
        """Return (N,) float64 numbers in [0, 1), functions of (seed, stream, name)."""
        keys = seeded_keys(self.ids if self.drawn_by is None else self.drawn_by, derive_seed(self.seed, stream)) >> 11
        return torch.from_numpy(keys.astype("float64") * 2.0**-53)


class LabelNoise(ABC):
    """Base of the noise models: callables from clean labels to noisy ones.

    Subclasses say with what probabilities a sample gets each label. The draw is a function of the seed and the sample's
    name: the same for any order of the samples, for any subset of them and on any machine.

    Example:
        >>> class Blinded(LabelNoise):  # every label is drawn from all classes
        ...     def probabilities(self, samples):
        ...         return torch.full((len(samples.targets), samples.num_classes), 1 / samples.num_classes)
        >>> import warnings
        >>> with warnings.catch_warnings(record=True) as caught:
        ...     noisy = Blinded()(torch.tensor([0, 1]), num_classes=2)
        >>> len(caught)  # such labels identify nothing
        1
    """

    @abstractmethod
    def probabilities(self, samples: Labelled) -> Tensor:
        """Return the probabilities of the labels that each sample may get, (N, K) float64."""

    def max_rate(self, num_classes: int) -> float:
        """Return the rate from which some class is more often labelled as another: (K - 1) / K by default."""
        return (num_classes - 1) / num_classes

    def __call__(
        self,
        targets: Tensor,
        num_classes: int,
        seed: int = 0,
        ids: Sequence[str] | None = None,
        images: Images | None = None,
        drawn_by: Sequence[str] | None = None,
    ) -> Tensor:
        """Return noisy labels, and warn where they no longer identify the classes.

        Args:
            targets: (N,) int64 clean classes.
            num_classes: Number of classes K.
            seed: Another seed draws other labels.
            ids: N stable names. By default their positions.
            images: N uint8 pictures (3, H, W), needed where the noise depends on them.
            drawn_by: N names, such as patients: samples of the same name draw the same number. By default the ids.

        Returns:
            (N,) int64.

        Raises:
            UserError: if the targets are not class indices below ``num_classes``, or images are needed and missing.
        """
        if targets.ndim != 1 or targets.is_floating_point():
            raise UserError(
                f"label noise needs one class index a sample, got {targets.dtype} targets of shape "
                f"{tuple(targets.shape)}; use single-label data."
            )
        if len(targets) and not 0 <= int(targets.min()) <= int(targets.max()) < num_classes:
            raise UserError(f"the targets must be 0 to {num_classes - 1}, got {targets.min()} to {targets.max()}.")
        names = [str(position) for position in range(len(targets))] if ids is None else ids
        samples = Labelled(targets, num_classes, names, seed, images, drawn_by)
        probabilities = self.probabilities(samples)
        self._warn_beyond_limit(class_means(probabilities, targets, num_classes))
        upper = probabilities.cumsum(1)
        upper = upper / upper[:, -1:]
        return (upper <= samples.uniforms(_LABEL).unsqueeze(1)).sum(1)

    def _warn_beyond_limit(self, transition: Tensor) -> None:
        if (pair := mislabelled_class(transition)) is not None:
            right, wrong = transition[pair[0], pair[0]], transition[pair]
            warnings.warn(
                f"{type(self).__name__} labels {right:.1%} of class {pair[0]} rightly and {wrong:.1%} as class "
                f"{pair[1]}, so that no method can tell from the labels which is which; lower the rate "
                f"(the limit is {self.max_rate(len(transition)):.3f}).",
                stacklevel=3,
            )


def check_rate(rate: float) -> float:
    """Return a noise rate that is one.

    Raises:
        ValueError: if it is outside [0, 1].

    Example:
        >>> check_rate(0.4)
        0.4
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"rate must be in [0, 1], got {rate}")
    return rate


def flip_rates(samples: Labelled, rate: float, std: float) -> Tensor:
    r"""Return a flip rate a sample, from the normal distribution truncated to [0, 1].

    .. math:: q_i = \rho + \sigma\, \Phi^{-1}\left(\Phi(a) + u_i (\Phi(b) - \Phi(a))\right), \quad
        a = -\rho / \sigma, \quad b = (1 - \rho) / \sigma

    Truncation moves the mean of rates near 0 and 1 inwards; but a rate of 0 is 0 for every sample.

    Args:
        samples: The samples.
        rate: Mean :math:`\rho` before truncation.
        std: Standard deviation :math:`\sigma` before truncation.

    Returns:
        (N,) float64.

    Example:
        >>> flip_rates(Labelled(torch.zeros(3).long(), 2, ["a", "b", "c"], seed=0), 0.4, 0.1).shape
        torch.Size([3])
    """
    if rate == 0:  # the clean cell of a sweep
        return torch.zeros(len(samples.targets), dtype=torch.float64)
    low, high = torch.special.ndtr(torch.tensor([-rate / std, (1 - rate) / std], dtype=torch.float64))
    return (rate + std * torch.special.ndtri(low + samples.uniforms(_RATE) * (high - low))).clamp(0, 1)


def flip_by_score(targets: Tensor, scores: Tensor, rates: Tensor) -> Tensor:
    r"""Return label probabilities that keep the label with :math:`1 - q_i` and else follow the scores of the others.

    .. math:: P_i = q_i \operatorname{softmax}_{k \ne y_i}(s_i) + (1 - q_i)\, e_{y_i}

    Args:
        targets: (N,) int64 clean classes.
        scores: (N, K) float.
        rates: (N,) float64 flip rates q.

    Returns:
        (N, K) float64.

    Example:
        >>> flip_by_score(torch.tensor([0]), torch.tensor([[9.0, 1.0, 1.0]]), torch.tensor([0.4]))
        tensor([[0.6000, 0.2000, 0.2000]], dtype=torch.float64)
    """
    label = targets.unsqueeze(1)
    others = scores.double().scatter(1, label, -torch.inf).softmax(1)
    rates = rates.double().unsqueeze(1)
    return (rates * others).scatter(1, label, 1 - rates)

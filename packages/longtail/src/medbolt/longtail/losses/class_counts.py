"""What the losses that depend on class frequencies share: they are told the counts, at once or later."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from medbolt.core.errors import UserError
from medbolt.core.losses import Reduction


class ClassCountsLoss(nn.Module):
    """Base of the losses that need to know how many training samples each class has.

    Subclasses say in :meth:`per_class` what they make of the counts, and read it from :meth:`of_classes`.

    The counts are an int64 buffer: it follows ``.to(device)``, stays exact under ``.half()`` and is not in the
    ``state_dict``. Counts given to the constructor stay; else the last :meth:`set_class_counts` holds, which
    :class:`~medbolt.core.ClassificationTask` calls with the counts of the data module. With them comes the number of
    samples, by :meth:`set_num_samples`: where samples have several labels it is not the sum of the counts.

    Args:
        class_counts: Training samples of each class; zeros are allowed.
        reduction: ``"mean"``, ``"sum"`` or ``"none"``.
        num_samples: Training samples.

    Raises:
        ValueError: if a count is negative, all are zero, they are no list of integers, or ``num_samples`` is not
            positive.

    Example:
        >>> class RareFirst(ClassCountsLoss):
        ...     def per_class(self, counts):
        ...         return 1 / counts.clamp(min=1)
        ...
        ...     def forward(self, logits, target):
        ...         return (self.of_classes(logits)[target] * -logits.log_softmax(1)[:, 0]).mean()
        >>> loss = RareFirst(class_counts=None, reduction="mean")
        >>> loss.set_class_counts([8, 2])
        >>> loss(torch.zeros(1, 2), torch.tensor([1])).item()  # log(2) / 2
        0.3465...
    """

    class_counts: Tensor | None
    one_class_a_sample: bool = False
    """Whether the formula has no sense for several labels a sample; a task refuses it then for multi-label data."""

    def __init__(
        self, class_counts: Sequence[int] | None, reduction: Reduction, num_samples: int | None = None
    ) -> None:
        super().__init__()
        if num_samples is not None and num_samples < 1:
            raise ValueError(f"num_samples must be positive, got {num_samples}")
        self.reduction: Reduction = reduction
        self.num_samples = num_samples
        self._given, self._samples_given = class_counts is not None, num_samples is not None
        self.register_buffer("class_counts", None, persistent=False)
        if class_counts is not None:
            self.class_counts = _checked(class_counts)
        self._made: dict[tuple[torch.device, torch.dtype, int], Tensor] = {}

    def __setattr__(self, name: str, value: Any) -> None:
        """Set an attribute; what was made of the counts by an earlier option is forgotten."""
        super().__setattr__(name, value)
        if not name.startswith("_") and name not in ("reduction", "training"):
            self.__dict__.get("_made", {}).clear()

    @abstractmethod
    def per_class(self, counts: Tensor) -> Tensor:
        """Return what the loss needs of the (C,) float counts, (..., C): weights, margins, a prior."""

    def set_class_counts(self, class_counts: Sequence[int]) -> None:
        """Take the counts of the data, unless the user gave some."""
        if not self._given:
            self.class_counts = _checked(class_counts)
            self.set_num_samples(None)

    def set_num_samples(self, num_samples: int | None) -> None:
        """Take the number of samples of the data, ``None`` if it is not known, unless the user gave it or counts.

        Counts that the user gave may be of other data, so the number of these does not belong to them.
        """
        if not self._given and not self._samples_given:
            self.num_samples = num_samples

    def samples(self, counts: Tensor) -> Tensor | int:
        """Return the number of training samples; the sum of the (C,) counts where nobody told."""
        return counts.sum() if self.num_samples is None else self.num_samples

    def of_classes(self, logits: Tensor) -> Tensor:
        """Return :meth:`per_class` in the precision and on the device of the logits; it is made once for each.

        In evaluation mode unknown counts are NaN, and so is the loss: a trained network can be tested on data that have
        no training split.

        Raises:
            UserError: if the counts do not number the classes or, in training mode, are not known.
        """
        key = (logits.device, logits.dtype, logits.shape[1])
        if (made := self._made.get(key)) is not None:
            return made
        name = type(self).__name__
        if self.class_counts is None and not self.training:
            return self.per_class(logits.new_full(logits.shape[1:2], torch.nan))
        if self.class_counts is None:
            raise UserError(
                f"{name} does not know how many training samples each class has; pass class_counts=[...], call "
                "set_class_counts, or train a ClassificationTask on a data module, which tells them."
            )
        if len(self.class_counts) != logits.shape[1]:
            raise UserError(
                f"{name} has {len(self.class_counts)} class_counts but the network gives {logits.shape[1]} logits; "
                "give one count a class."
            )
        with torch.inference_mode(False):  # validation comes first, and what it makes is needed for training
            made = self._made[key] = self.per_class(self.class_counts.to(logits.device, logits.dtype))
        return made

    def extra_repr(self) -> str:
        """Show the counts when the module is printed."""
        return "" if self.class_counts is None else f"class_counts={self.class_counts.tolist()}"


def log_prior(counts: Tensor) -> Tensor:
    r"""Return :math:`\log \pi_c`, (C,), with an empty class taken as one sample.

    Example:
        >>> log_prior(torch.tensor([3.0, 1.0, 0.0])).exp()
        tensor([0.6000, 0.2000, 0.2000])
    """
    return counts.clamp(min=1).log().log_softmax(0)


def smallest_count(counts: Tensor) -> Tensor:
    """Return the count of the rarest class that has samples, ().

    Example:
        >>> smallest_count(torch.tensor([9.0, 0.0, 2.0]))
        tensor(2.)
    """
    return counts.where(counts > 0, torch.inf).min()


def _checked(class_counts: Sequence[int]) -> Tensor:
    counts = torch.as_tensor(class_counts)
    if counts.ndim != 1 or counts.is_floating_point() or counts.is_complex() or len(counts) == 0:
        raise ValueError(f"class_counts must be a list of integers, one a class, got {class_counts}")
    if (counts < 0).any() or not counts.any():
        raise ValueError(f"class_counts must not be negative nor all zero, got {class_counts}")
    return counts.long()

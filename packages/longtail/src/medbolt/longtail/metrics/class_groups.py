"""Head, medium and tail: which classes count as frequent and which as rare."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Average = Literal["class", "group"]


@dataclass(frozen=True)
class ClassGroups:
    """The classes of each group.

    Two customs differ and are not comparable: thresholds on the number of training samples (:meth:`by_count`), and
    ranges of classes ordered by frequency (:meth:`by_rank`, or :meth:`by_index` where they are numbered so).

    Args:
        head: Indices of the frequent classes.
        medium: Indices of those between.
        tail: Indices of the rare ones.

    Raises:
        ValueError: if a class is in two groups or twice in one, or an index negative.

    Source: thresholds, Liu et al., arXiv 1904.05160; ranges, MONICA, arXiv 2410.02010.

    Example:
        >>> ClassGroups.by_count([500, 101, 100, 20, 19, 0])
        ClassGroups(head=(0, 1), medium=(2, 3), tail=(4, 5))
    """

    head: tuple[int, ...]
    medium: tuple[int, ...]
    tail: tuple[int, ...]

    def __post_init__(self) -> None:
        classes = [*self.head, *self.medium, *self.tail]
        if len(set(classes)) < len(classes) or min(classes, default=0) < 0:
            raise ValueError(f"every class belongs to one group, got {self}")

    @classmethod
    def by_count(cls, class_counts: Sequence[int], many: int = 100, few: int = 20) -> "ClassGroups":
        """Divide classes by their training samples: head has more than ``many``, tail fewer than ``few``.

        Args:
            class_counts: Training samples of each class.
            many: Most samples of a medium class.
            few: Fewest samples of a medium class.

        Raises:
            ValueError: if ``few`` is more than ``many`` + 1, so that groups would overlap.
        """
        if few > many + 1:
            raise ValueError(f"few must not be above many + 1, got {few} and {many}")
        groups: tuple[list[int], list[int], list[int]] = ([], [], [])
        for c, count in enumerate(class_counts):
            groups[0 if count > many else 2 if count < few else 1].append(c)
        return cls(*map(tuple, groups))

    @classmethod
    def by_index(cls, num_classes: int, head: int, medium: int) -> "ClassGroups":
        """Divide classes by their index, the most frequent first: head [0, head), medium [head, medium), tail the rest.

        Args:
            num_classes: Number of classes.
            head: End of the head.
            medium: End of the medium group; MONICA's configurations give both as ends, not as sizes.

        Raises:
            ValueError: unless 0 <= head <= medium <= num_classes.
        """
        if not 0 <= head <= medium <= num_classes:
            raise ValueError(f"0 <= head <= medium <= num_classes must hold, got {head}, {medium} and {num_classes}")
        return cls(tuple(range(head)), tuple(range(head, medium)), tuple(range(medium, num_classes)))

    @classmethod
    def by_rank(cls, class_counts: Sequence[int], head: int, medium: int) -> "ClassGroups":
        """Divide classes by their rank among all, the most frequent first; of equal counts the lower index is first.

        Args:
            class_counts: Training samples of each class.
            head: Number of head classes.
            medium: Number of head and medium classes together: the end of the medium group, as in :meth:`by_index`.

        Raises:
            ValueError: unless 0 <= head <= medium <= number of classes.

        Example:
            >>> ClassGroups.by_rank([20, 500, 3, 100], head=1, medium=2)
            ClassGroups(head=(1,), medium=(3,), tail=(0, 2))
        """
        order = sorted(range(len(class_counts)), key=lambda c: -class_counts[c])
        ranks = cls.by_index(len(class_counts), head, medium)
        return cls(*(tuple(sorted(order[r] for r in group)) for group in (ranks.head, ranks.medium, ranks.tail)))

    def means(self, values: Tensor, average: Average = "class") -> dict[str, Tensor]:
        """Return the mean of each group and of all, NaN left out.

        Args:
            values: (C,) one value a class; NaN where there is none.
            average: What ``average`` is: the mean of the classes' values or of the groups', as MONICA has it.

        Returns:
            ``head``, ``medium``, ``tail`` and ``average``; NaN where no class has a value.

        Raises:
            ValueError: for another ``average``.
        """
        if average not in ("class", "group"):
            raise ValueError(f"average must be 'class' or 'group', got {average!r}")
        groups = {"head": self.head, "medium": self.medium, "tail": self.tail}
        means = {name: values[list(classes)].nanmean() for name, classes in groups.items()}
        classes = [*self.head, *self.medium, *self.tail]
        overall = torch.stack(list(means.values())) if average == "group" else values[classes]
        return {**means, "average": overall.nanmean()}

"""Skilled experts (SADE): one for classes as they are, one for equal classes, one for the tail."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import ObjectiveCallback, TrainingStep, UserError
from medbolt.longtail.experts.lookup import expert_logits, find_experts
from medbolt.longtail.losses.class_counts import log_prior
from medbolt.longtail.losses.inputs import require_several_outputs
from medbolt.longtail.stages.counts import known_counts


class SkilledExperts(ObjectiveCallback):
    r"""Train three experts for three class distributions: long-tailed, uniform and inversely long-tailed (SADE).

    .. math::
        \ell_i = \ell(z_{1,i}, y_i) + \ell(z_{2,i} + \log \pi, y_i)
        + \ell(z_{3,i} + \log \pi - \tau \log \bar\pi, y_i)

    with the class frequencies :math:`\pi` and the inverse ones :math:`\bar\pi`, in which the most frequent class has
    the frequency of the rarest and so on. With cross entropy as the module's criterion these are softmax, balanced
    softmax and inverse softmax; where frequencies fall exponentially, they are
    :class:`~medbolt.longtail.LogitAdjustedLoss` with ``tau`` 0, 1 and :math:`1 + \tau`.

    The network is an :class:`~medbolt.longtail.ExpertsClassifier`, which predicts with the mean of the three.
    :class:`~medbolt.longtail.ExpertAggregation` finds other weights for test data of any class distribution.

    Args:
        tau: How far the third expert leans towards the tail, not negative; the authors' is 2, and 1 for iNaturalist.
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion, one that does not correct for class frequencies by itself; see
            :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network of experts.

    Shapes:
        experts' logits (3, B, C); target of any kind that the criterion takes.

    Raises:
        ValueError: if ``tau`` is negative.
        UserError: at ``fit``, if the network has not three experts or nobody knows the class counts; in training, if
            they do not number the classes or the network has one output only.

    State, cost: none. The criterion is evaluated three times. Callbacks that put other logits in the step's place,
    such as those with a second network, come before this one.

    Source: Zhang et al., arXiv 2107.09249. An empty class counts as one sample. Classes of equal size have the
    geometric mean of their inverse frequencies; in public code the order of the classes decides between them. MONICA's
    SADE has no aggregation at test time.

    Example:
        >>> callback = SkilledExperts(tau=2.0)
    """

    def __init__(
        self,
        tau: float = 2.0,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network, f"{network}.experts")
        if tau < 0:
            raise ValueError(f"tau must not be negative, got {tau}")
        self.tau, self.class_counts = tau, class_counts
        self.shifts = torch.zeros(3, 0)  # of the logits in training, by expert and class

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the shifts."""
        if stage == "fit":
            find_experts(pl_module, self.network, self, 3)
            counts = known_counts(self, self.class_counts, trainer).double()
            log_pi = log_prior(counts)
            shifts = [torch.zeros_like(log_pi), log_pi, log_pi - self.tau * log_inverse(counts)]
            self.shifts = torch.stack(shifts).float()
        super().setup(trainer, pl_module, stage)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the shifts to the module's device."""
        super().on_train_start(trainer, pl_module)
        self.shifts = self.shifts.to(pl_module.device)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the sum of the experts' losses."""
        logits = expert_logits(step)
        require_several_outputs(logits.shape[2], self)
        if self.shifts.shape[1] != logits.shape[2]:
            raise UserError(
                f"SkilledExperts has {self.shifts.shape[1]} class_counts but the network gives {logits.shape[2]} "
                "logits; give one count a class."
            )
        shifted = logits + self.shifts.unsqueeze(1)
        return torch.stack([step.loss(logits=own) for own in shifted]).sum(0)


def log_inverse(counts: Tensor) -> Tensor:
    """Return the log frequencies in reverse order of size, (C,); classes that are equal share theirs.

    Example:
        >>> log_inverse(torch.tensor([6.0, 3.0, 1.0])).exp(), log_inverse(torch.tensor([4.0, 4.0, 1.0])).exp()
        (tensor([0.1000, 0.3000, 0.6000]), tensor([0.2222, 0.2222, 0.4444]))
    """
    counts = counts.clamp(min=1)  # an empty class is the equal of those with one sample
    order = counts.argsort()
    reverse = torch.empty_like(counts)
    reverse[order] = log_prior(counts)[order].flip(0)
    _, group = counts.unique(return_inverse=True)
    size = torch.bincount(group).to(counts)
    return (torch.zeros_like(size).index_add(0, group, reverse) / size)[group]

"""Deferred re-weighting (DRW): classes count by their rarity from an epoch on, not before."""

from collections.abc import Sequence

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import ObjectiveCallback, TrainingStep, UserError
from medbolt.longtail.losses.weights import Weighting, check_beta, class_weights, sample_weights
from medbolt.longtail.stages.counts import known_counts
from medbolt.longtail.stages.schedule import check_start, start_epoch


class DeferredReweighting(ObjectiveCallback):
    r"""Weigh the loss of each sample by its class, from an epoch on.

    .. math::
        \ell_i \leftarrow \begin{cases} \ell_i & t < t_0 \\ w_{y_i} \ell_i & t \ge t_0 \end{cases}, \qquad
        w_c \propto \frac{1 - \beta}{1 - \beta^{n_c}}, \quad \textstyle\sum_c w_c = C

    Weights from the beginning harm the features of a deep network; late in training they only move its boundaries. With
    :class:`~medbolt.longtail.LDAMLoss` as criterion it is LDAM-DRW; any criterion will do. A decay of the learning rate
    at the same epoch is part of the paper's recipe.

    Args:
        start: First epoch :math:`t_0` of the weights: an integer counts epochs from 0, a float in [0, 1] is a share of
            ``max_epochs``, rounded down. The paper's is 160 of 200, MONICA's 0.8.
        weighting: The rule of :func:`~medbolt.longtail.class_weights`.
        beta: Of ``"effective"``, in [0, 1).
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.
        features: Dotted attribute of the layer of ``step.features``.

    Shapes:
        logits (B, C); target (B,) int64, or (B, C) float: then a sample's weight is the mean over its labels, and 1
        where it has none.

    Raises:
        ValueError: if ``start`` or ``beta`` is out of range.
        UserError: at ``fit``, if nobody knows the class counts; in training, if they do not number the classes.

    State, cost: none: the weights are a function of the epoch, so a resumed run needs nothing restored.

    Source: Cao et al., arXiv 1906.07413. Public code divides the weighted losses by the weights of the batch; here the
    mean is over samples. An empty class has weight 0. Callbacks that mix labels, such as ``Remix``, come after this
    one: each label then gets its own weight.

    Example:
        >>> callback = DeferredReweighting(start=0.8)
    """

    def __init__(
        self,
        start: int | float = 0.8,
        weighting: Weighting = "effective",
        beta: float = 0.9999,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        network: str = "model",
        features: str | None = None,
    ) -> None:
        super().__init__(criterion, network, features)
        check_start(start)
        check_beta(beta)
        self.start, self.beta, self.class_counts = start, beta, class_counts
        self.weighting: Weighting = weighting
        self.first_epoch = 0
        self.weights = torch.ones(0)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Make the weights."""
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.first_epoch = start_epoch(self, self.start, trainer)
            self.weights = class_weights(
                known_counts(self, self.class_counts, trainer).float(), self.weighting, self.beta
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the weights to the module's device."""
        super().on_train_start(trainer, pl_module)
        self.weights = self.weights.to(pl_module.device)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses, weighted from the first epoch on."""
        losses = step.loss()
        if step.module.current_epoch < self.first_epoch:
            return losses
        return losses * self._weight(step)

    def _weight(self, step: TrainingStep) -> Tensor:
        classes = step.logits.shape[1] if step.logits.ndim > 1 else 2
        if len(self.weights) != classes:
            raise UserError(
                f"DeferredReweighting has {len(self.weights)} class_counts but the network gives {classes} logits; "
                "give one count a class."
            )
        return sample_weights(step.target, self.weights)

"""Influence balancing: the influence-balanced loss with the features it asks for, after a phase without."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from medbolt.core import ObjectiveCallback, TrainingStep
from medbolt.core.losses import require_several_labels
from medbolt.core.predictions.context import task_of
from medbolt.longtail.losses.influence_balanced import InfluenceBalancedLoss
from medbolt.longtail.stages.counts import known_counts
from medbolt.longtail.stages.schedule import check_start, start_epoch


class InfluenceBalancing(ObjectiveCallback):
    r"""Fine-tune with the influence-balanced loss, with features, from an epoch on.

    .. math:: \ell_i \leftarrow \begin{cases} \ell_i & t < t_0 \\
        \dfrac{\lambda_{y_i}}{\|p_i - y_i\|_1 \|h_i\|_1 + \epsilon}\, \mathrm{CE}(z_i, y_i) & t \ge t_0 \end{cases}

    :class:`~medbolt.longtail.InfluenceBalancedLoss` as a criterion sees no features and takes the influence on the last
    layer's bias; here it gets the last layer's input. It takes the place of the criterion.

    Args:
        loss: The loss, with its options; the paper's ``alpha`` is 1000, for features of 1-norm about 1000. It is told
            the class counts of the data module unless it has some.
        start: First epoch :math:`t_0`: an integer counts epochs from 0, a float in [0, 1] is a share of ``max_epochs``.
            The paper's is 100 of 200 (**unverified**).
        features: Dotted attribute of the layer whose output, flattened, is the input of the last layer.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.

    Raises:
        ValueError: if ``start`` is out of range.
        UserError: at ``fit``, if there is no such layer, nobody knows the class counts, or samples may have several
            findings.

    State, cost: none: it is a function of the epoch, so a resumed run needs nothing restored.

    Source: Park et al., arXiv 2110.02444; see the loss for departures.

    Example:
        >>> callback = InfluenceBalancing(InfluenceBalancedLoss(alpha=1000.0), start=0.5)
    """

    def __init__(
        self,
        loss: InfluenceBalancedLoss,
        start: int | float = 0.5,
        features: str = "model.features",
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network, features)
        check_start(start)
        self.loss, self.start = loss, start
        self._is_told = loss.class_counts is not None  # by the user
        self.first_epoch = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the loss the class counts."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        if task_of(pl_module) == "multilabel":
            require_several_labels(self.loss)
        self.first_epoch = start_epoch(self, self.start, trainer)
        if not self._is_told:
            self.loss.set_class_counts(known_counts(self, None, trainer).tolist())

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the loss to the module's device."""
        super().on_train_start(trainer, pl_module)
        self.loss.to(pl_module.device)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the module's losses, then influence-balanced ones."""
        if step.module.current_epoch < self.first_epoch:
            return step.loss()
        reduction, self.loss.reduction = self.loss.reduction, "none"
        try:
            return self.loss(step.logits, step.target, step.features.flatten(1))
        finally:
            self.loss.reduction = reduction

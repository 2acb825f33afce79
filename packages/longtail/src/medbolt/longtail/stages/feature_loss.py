"""A penalty on features beside the module's own loss: center loss, range loss and their kin."""

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from medbolt.core import ObjectiveCallback, TrainingStep, UserError
from medbolt.longtail.losses.inputs import precise
from medbolt.longtail.stages.schedule import check_start, start_epoch


class FeatureLoss(ObjectiveCallback):
    r"""Add a loss of features and targets to the module's own.

    .. math:: \ell_i \leftarrow \ell_i + \lambda(t)\, \ell^{\text{feature}}(h_i, y_i), \qquad
        \lambda(t) = \lambda\, [t \ge t_0]

    What the loss trains itself, such as the centers of :class:`~medbolt.longtail.CenterLoss`, is trained by the
    module's optimizer, from the first epoch on and as if :math:`\lambda` were 1: only the features feel the weight. So
    centers are where they belong when features begin to follow them.

    Args:
        loss: Called with features (B, D) and target; returns one loss a sample, (B,), or their mean.
        weight: Weight :math:`\lambda`, not negative. MONICA's of center loss are 0.001 from 0.6 of the epochs on and
            0.005 from 0.8 on.
        start: First epoch :math:`t_0`: an integer counts epochs from 0, a float in [0, 1] is a share of ``max_epochs``.
        features: Dotted attribute of the layer whose output, flattened, is the features.
        criterion: Attribute of the criterion; see :class:`~medbolt.core.ObjectiveCallback`.
        network: Attribute of the network.

    Raises:
        ValueError: if ``weight`` is negative or ``start`` out of range.
        UserError: at ``fit``, if there is no such layer; in training, if the loss returns another shape.

    State, cost: what the loss trains, in checkpoints of this callback and not of the module; one evaluation of the
    loss.

    Source: the sum of losses of Wen et al., doi 10.1007/978-3-319-46478-7_31, and Zhang et al., arXiv 1611.08976. In
    Wen's rule, too, centers move regardless of the weight. Before a callback that mixes labels, such as ``Remix``, each
    of a mixture's labels pulls by its share. A callback with a second network comes before this one, else the penalty
    on the first network's features counts twice.

    Example:
        >>> from medbolt.longtail import CenterLoss
        >>> callback = FeatureLoss(CenterLoss(num_classes=8, num_features=512), weight=0.001, start=0.6)
    """

    def __init__(
        self,
        loss: nn.Module,
        weight: float = 0.001,
        start: int | float = 0,
        features: str = "model.features",
        criterion: str = "criterion",
        network: str = "model",
    ) -> None:
        super().__init__(criterion, network, features)
        check_start(start)
        if weight < 0:
            raise ValueError(f"weight must not be negative, got {weight}")
        self.loss, self.weight, self.start = loss, weight, start
        self.first_epoch = 0

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Let the module's optimizer train what the loss has to train."""
        super().setup(trainer, pl_module, stage)
        if stage != "fit":
            return
        self.first_epoch = start_epoch(self, self.start, trainer)
        if any(True for _ in self.loss.parameters()):
            self.attach(pl_module, f"feature_{type(self.loss).__name__}", self.loss)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the loss to the module's device."""
        super().on_train_start(trainer, pl_module)
        self.loss.to(pl_module.device)

    def objective(self, step: TrainingStep) -> Tensor:
        """Return the losses with the weighted feature loss added."""
        weight = self.weight if step.module.current_epoch >= self.first_epoch else 0.0
        if not weight and not self._attachments:
            return step.loss()
        features = precise(step.features.flatten(1))
        # the value and its gradient to the loss's own parameters as they are, to the features times the weight
        penalty = self.loss(features * weight + features.detach() * (1 - weight), step.target)
        if penalty.shape not in ((), (len(step.logits),)):
            raise UserError(
                f"{type(self.loss).__name__} returned shape {tuple(penalty.shape)} for {len(step.logits)} samples; "
                "give FeatureLoss a loss with one value a sample, or their mean."
            )
        return step.loss() + penalty + (weight - 1) * penalty.detach()

    @property
    def state_key(self) -> str:
        """Key of this callback's state in a checkpoint, one for each kind of loss."""
        return f"{super().state_key}{type(self.loss).__name__}"

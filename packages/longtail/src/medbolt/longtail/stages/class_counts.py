"""Tell the criterion of any module how many training samples each class has."""

from collections.abc import Sequence
from operator import attrgetter

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from medbolt.core.errors import UserError, listed
from medbolt.core.losses import tell_class_counts
from medbolt.longtail.stages.counts import known_counts


class ClassCounts(Callback):
    """Tell a module's criterion the class counts, as :class:`~medbolt.core.ClassificationTask` does by itself.

    So a module that was written without medbolt can have a loss that asks for them, without counting its data first.

    Args:
        class_counts: Training samples of each class; those of the data module by default.
        criterion: Attribute of the criterion, dotted if nested, which must be an ``nn.Module``.
        num_samples: Training samples. By default they are counted where the class counts are the data module's; losses
            take the sum of counts that are given.

    Raises:
        UserError: if nobody knows the counts, there is no such criterion, or nothing in it asks for them.

    State, cost: none.

    Example:
        >>> callback = ClassCounts([5000, 600, 90, 12], criterion="loss_fn")
    """

    def __init__(
        self,
        class_counts: Sequence[int] | None = None,
        criterion: str = "criterion",
        num_samples: int | None = None,
    ) -> None:
        self.class_counts, self.criterion, self.num_samples = class_counts, criterion, num_samples

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the counts."""
        if stage == "predict":
            return
        try:
            found = attrgetter(self.criterion)(pl_module)
        except AttributeError:
            found = None
        asking = [module for module in pl_module.modules() if callable(getattr(module, "set_class_counts", None))]
        if not isinstance(found, nn.Module) or not any(module in asking for module in found.modules()):
            kinds = dict.fromkeys(type(module).__name__ for module in asking)
            known = f"{listed(kinds)} does" if asking else "nothing else does"
            raise UserError(
                f"'{self.criterion}' of {type(pl_module).__name__} asks for no class counts ({known}); name the "
                "attribute of a loss that does, such as medbolt.longtail.BalancedSoftmaxLoss()."
            )
        try:
            counts = known_counts(self, self.class_counts, trainer)
        except UserError:
            if stage == "fit":
                raise
            return  # a test needs the counts for its loss only, and may lack the training data they come from
        num_samples = self.num_samples
        if num_samples is None and self.class_counts is None:
            targets = getattr(trainer.datamodule, "train_targets", None)  # pyright: ignore[reportAttributeAccessIssue]
            num_samples = None if targets is None else len(targets)
        tell_class_counts(found, counts.tolist(), num_samples)

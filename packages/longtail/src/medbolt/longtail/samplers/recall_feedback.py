"""Tell a sampler after each validation how well every class is recognised."""

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from medbolt.core import ClassRecall, UserError
from medbolt.longtail.losses.inputs import two_columns
from medbolt.longtail.samplers.flex_rebalancing import FlexRebalancingSampler


class RecallFeedback(Callback):
    """Give :class:`~medbolt.longtail.FlexRebalancingSampler` the recall of each class in the last validation.

    It counts on all processes together and takes effect from the next epoch; of several validation loaders the first
    one counts. The module's ``validation_step`` must return a mapping with ``"probability"`` (or ``"logits"``), (B, C),
    or (B,) and (B, 1) for two classes, and ``"target"``, (B,), as that of
    :class:`~medbolt.core.ClassificationTask` does. Validate once an epoch, at its end, for a run that is resumed inside
    an epoch to repeat it exactly. A checkpoint of an epoch's last step, saved before its validation, which Lightning
    leaves out when it resumes, lacks the recalls of that epoch: the next one draws by those before.

    Raises:
        UserError: at ``fit``, if the training loader has another sampler, the data module does not say how many classes
            there are, or ``validation_step`` returns something else.

    State: the last recalls, in checkpoints.

    Source: MONICA's FlexRS, arXiv 2410.02010.

    Example:
        >>> from lightning.pytorch import Trainer
        >>> trainer = Trainer(callbacks=[RecallFeedback()], accelerator="cpu", logger=False)
    """

    def __init__(self) -> None:
        self.recall: list[float] | None = None
        self._metric: ClassRecall | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the recalls of an earlier run; a checkpoint's are restored later."""
        if stage == "fit" and trainer.current_epoch == 0:
            self.recall, self._metric = None, None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand over restored recalls: an epoch that is resumed has no start of its own."""
        self._hand_over(trainer)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hand the recalls to the sampler, before it makes the order of the epoch."""
        self._hand_over(trainer)

    def _hand_over(self, trainer: Trainer) -> None:
        sampler = getattr(trainer.train_dataloader, "sampler", None)
        if not isinstance(sampler, FlexRebalancingSampler):
            name = type(sampler).__name__
            remedy = "train on medbolt.longtail.Resampled(data, FlexRebalancingSampler)"
            if getattr(trainer, "overfit_batches", 0):
                remedy = "leave overfit_batches out, for which Lightning puts the sampler aside"
            raise UserError(
                f"RecallFeedback drives a FlexRebalancingSampler, but the training loader has a {name}; {remedy}."
            )
        if self.recall is not None:
            sampler.set_class_recall(self.recall)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin to count."""
        if trainer.state.fn != "fit":
            return
        data: Any = trainer.datamodule  # pyright: ignore[reportAttributeAccessIssue]
        if not hasattr(data, "num_classes"):
            raise UserError("RecallFeedback needs a data module with num_classes; give the Trainer a datamodule.")
        self._metric = ClassRecall(data.num_classes).to(pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count a batch."""
        if self._metric is None or dataloader_idx:
            return
        scores = None
        if isinstance(outputs, Mapping) and "target" in outputs:
            scores = outputs.get("probability", outputs.get("logits"))
        if scores is None or not isinstance(outputs, Mapping):
            raise UserError(
                f"RecallFeedback needs validation_step of {type(pl_module).__name__} to return a dict with "
                "'probability' and 'target'; return them."
            )
        self._metric.update(two_columns(scores, "probability" in outputs), outputs["target"])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Keep the recalls for the next epoch."""
        if self._metric is not None and not trainer.sanity_checking:
            self.recall = self._metric.compute().tolist()
        self._metric = None

    def state_dict(self) -> dict[str, Any]:
        """Return the last recalls."""
        return {"recall": self.recall}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore them."""
        self.recall = state_dict["recall"]

"""What the samples of one loader give: their mean loss and the metrics of the task."""

from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchmetrics import MeanMetric

from medbolt.core.metrics.defaults import TaskKind, classification_metrics


class Scores(nn.Module):
    """Gather mean loss and metrics of one loader, over batches and processes.

    The mean of the loss is over samples; as a metric it is exact where processes have unequal shares, of which
    Lightning's own mean over processes is a rounded one.

    Args:
        task: Kind of task.
        num_classes: Number of classes or labels.

    Shapes:
        ``update(loss, probability, target)``: () float; (B, C) float, or (B,) for binary; (B,) int64 or (B, C).

    Example:
        >>> scores = Scores("multiclass", 2)
        >>> scores.update(torch.tensor(0.5), torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([0, 1]))
        >>> scores.loss.compute(), scores.metrics.compute()["accuracy"]
        (tensor(0.5000), tensor(0.5000))
    """

    def __init__(self, task: TaskKind, num_classes: int) -> None:
        super().__init__()
        self.loss = MeanMetric()
        self.metrics = classification_metrics(task, num_classes)

    def update(self, loss: Tensor, probability: Tensor, target: Tensor) -> None:
        """Gather a batch."""
        self.loss.update(loss, len(target))
        self.metrics.update(probability, target)

    def reset(self) -> None:
        """Forget."""
        self.loss.reset()
        self.metrics.reset()

    def log(self, module: LightningModule, stage: str, attribute: str, batch_size: int) -> None:
        """Let a module log ``<stage>/loss`` and ``<stage>/<metric>``; ``attribute`` is where it has these scores."""
        module.log(
            f"{stage}/loss", self.loss, prog_bar=True, batch_size=batch_size, metric_attribute=f"{attribute}.loss"
        )
        for name, metric in self.metrics.items(keep_base=True, copy_state=False):
            where = f"{attribute}.metrics.{name}"
            module.log(f"{stage}/{name}", metric, batch_size=batch_size, metric_attribute=where)

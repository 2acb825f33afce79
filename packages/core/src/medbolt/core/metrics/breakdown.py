"""Recall and AUROC class by class, balanced accuracy and AUROC domain by domain."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from medbolt.core.metrics.auroc import class_auroc
from medbolt.core.metrics.defaults import TaskKind, classification_metrics


class Breakdown(Metric):
    """Where a classifier is good and where it is not: by class and, with domains, by domain.

    Args:
        task: Kind of task.
        class_names: Names of the classes.
        domain_names: Names of the domains; without, there is no view by domain.

    Shapes:
        ``update(probability, target, domain)``: (B, C) float, or (B,) for binary; (B,) int64 or (B, C); (B,) int64 or
        ``None``. ``compute()`` returns a flat dict: ``recall/<class>``, ``auroc/<class>``,
        ``balanced_accuracy/<domain>``, ``auroc/<domain>`` (``auroc/domain <domain>`` where a class has that name) and
        ``<metric>/worst_domain``. What cannot be computed (a class or domain without samples) is left out.

    Example:
        >>> metric = Breakdown("multiclass", ["healthy", "ill"])
        >>> metric.update(torch.tensor([[0.9, 0.1], [0.6, 0.4]]), torch.tensor([0, 1]))
        >>> metric.compute()["recall/ill"]
        tensor(0.)
    """

    full_state_update = False
    probability: list[Tensor]
    target: list[Tensor]
    domain: list[Tensor]

    def __init__(self, task: TaskKind, class_names: Sequence[str], domain_names: Sequence[str] | None = None) -> None:
        super().__init__()
        self.task: TaskKind = task
        self.class_names, self.domain_names = list(class_names), list(domain_names or ())
        for name in ("probability", "target", "domain"):
            self.add_state(name, [], dist_reduce_fx="cat")

    def update(self, probability: Tensor, target: Tensor, domain: Tensor | None = None) -> None:
        """Keep a batch."""
        self.probability.append(probability)
        self.target.append(target)
        self.domain.append(target.new_zeros(len(target)).long() if domain is None else domain)

    def compute(self) -> dict[str, Tensor]:
        """Return the views by class and by domain."""
        probability, target = dim_zero_cat(self.probability), dim_zero_cat(self.target)
        result = self._by_class(probability, target)
        if self.domain_names:
            result |= self._by_domain(probability, target, dim_zero_cat(self.domain))
        return {name: value for name, value in result.items() if not value.isnan()}

    def _by_class(self, probability: Tensor, target: Tensor) -> dict[str, Tensor]:
        if self.task == "binary":
            probability = torch.stack([1 - probability, probability], 1)
        if target.ndim == 2:
            flags, predicted = target.bool(), probability > 0.5
        else:
            classes = torch.arange(len(self.class_names), device=target.device)
            flags, predicted = target[:, None] == classes, probability.argmax(1)[:, None] == classes
        recall = (flags & predicted).sum(0) / flags.sum(0)
        auroc = class_auroc("multilabel", probability, flags, len(self.class_names))
        names = self.class_names
        return {f"recall/{n}": v for n, v in zip(names, recall, strict=True)} | {
            f"auroc/{n}": v for n, v in zip(names, auroc, strict=True)
        }

    def _by_domain(self, probability: Tensor, target: Tensor, domain: Tensor) -> dict[str, Tensor]:
        result: dict[str, Tensor] = {}
        kept = ("balanced_accuracy", "auroc") if self.task != "multilabel" else ("auroc", "f1")
        for number, name in enumerate(self.domain_names):
            here = domain == number
            if not here.any():
                continue
            metrics = classification_metrics(self.task, len(self.class_names)).to(probability.device)
            values = metrics(probability[here], target[here])
            label = f"domain {name}" if name in self.class_names else name
            result |= {f"{metric}/{label}": values[metric] for metric in kept}
        for metric in kept:
            values = torch.stack([value for key, value in result.items() if key.startswith(f"{metric}/")])
            result[f"{metric}/worst_domain"] = (
                values.nan_to_num(torch.inf).min().where(~values.isnan().all(), torch.nan)
            )
        return result

"""Area under the ROC curve that leaves out the classes it is not defined for."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, multilabel_auroc
from torchmetrics.utilities import dim_zero_cat

Kind = Literal["multiclass", "binary", "multilabel"]


class MacroAUROC(Metric):
    """Mean over the classes, each against the rest, of the area under the ROC curve.

    A class without samples, or without others, has no curve: it is left out of the mean, where torchmetrics counts it
    as 0. Without any curve the result is NaN.

    Args:
        kind: Kind of the targets.
        num_classes: Number of classes or labels C; 2 for binary targets.

    Shapes:
        ``update(probability, target)``: (B, C) float and (B,) int64; for binary (B,) both; for multi-label (B, C) both.
        ``compute()`` returns ().

    Example:
        >>> metric = MacroAUROC("multiclass", 3)
        >>> metric.update(torch.tensor([[0.8, 0.1, 0.1], [0.3, 0.6, 0.1]]), torch.tensor([0, 1]))
        >>> metric.compute()
        tensor(1.)
    """

    full_state_update = False
    higher_is_better = True
    is_differentiable = False
    probability: list[Tensor]
    target: list[Tensor]

    def __init__(self, kind: Kind, num_classes: int) -> None:
        super().__init__()
        self.kind: Kind = kind
        self.num_classes = num_classes
        self.add_state("probability", [], dist_reduce_fx="cat")
        self.add_state("target", [], dist_reduce_fx="cat")

    def update(self, probability: Tensor, target: Tensor) -> None:
        """Keep a batch."""
        self.probability.append(probability)
        self.target.append(target)

    def compute(self) -> Tensor:
        """Return the mean."""
        probability, target = dim_zero_cat(self.probability), dim_zero_cat(self.target)
        return class_auroc(self.kind, probability, target, self.num_classes).nanmean()


def class_auroc(kind: Kind, probability: Tensor, target: Tensor, num_classes: int) -> Tensor:
    """Return the area under each class's curve, (C,), or (1,) of the positive class for binary targets.

    Classes without samples, or without others, have NaN. Shapes are those of :class:`MacroAUROC`.

    Example:
        >>> class_auroc("binary", torch.tensor([0.2, 0.7]), torch.tensor([1, 1]), 2)
        tensor([nan])
    """
    if kind == "multiclass":
        positive = target[:, None] == torch.arange(num_classes, device=target.device)
    else:
        positive = (target if kind == "multilabel" else target[:, None]) > 0
    count = positive.sum(0)
    defined = (count > 0) & (count < len(target))
    area = probability.new_full(defined.shape, torch.nan)
    if defined.any():
        # a class against the rest is a label; torchmetrics would warn of those without a curve
        scores = probability if probability.ndim == 2 else probability[:, None]
        scores, positive = scores[:, defined], positive[:, defined].long()
        if positive.shape[1] == 1:
            area[defined] = binary_auroc(scores[:, 0], positive[:, 0])
        else:
            area[defined] = multilabel_auroc(scores, positive, positive.shape[1], average="none")
    return area

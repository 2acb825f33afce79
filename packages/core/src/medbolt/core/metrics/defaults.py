"""The metrics that say something about imbalanced medical data, by kind of task."""

from typing import Literal

import torch
from torch import Tensor
from torchmetrics import MetricCollection
from torchmetrics import classification as tm

from medbolt.core.metrics.auroc import MacroAUROC
from medbolt.core.metrics.balanced_accuracy import BalancedAccuracy, LabelBalancedAccuracy

TaskKind = Literal["multiclass", "binary", "multilabel", "ordinal"]


def classification_metrics(task: TaskKind, num_classes: int) -> MetricCollection:
    """Return the default metrics of a task; they take probabilities and targets.

    ===========  =======================================================================================
    multiclass   accuracy, balanced_accuracy, auroc (macro, one against rest), ece (15 bins)
    ordinal      the same and qwk (quadratic weighted kappa)
    binary       accuracy, balanced_accuracy, auroc, average_precision, ece
    multilabel   balanced_accuracy, auroc, average_precision and f1, each the mean over labels
    ===========  =======================================================================================

    Classes that the targets lack are left out of auroc's mean.

    Args:
        task: Kind of task.
        num_classes: Number of classes or labels.

    Example:
        >>> sorted(classification_metrics("ordinal", 5))
        ['accuracy', 'auroc', 'balanced_accuracy', 'ece', 'qwk']
    """
    if task == "binary":
        return MetricCollection(
            {
                "accuracy": tm.BinaryAccuracy(),
                "balanced_accuracy": BinaryBalancedAccuracy(),
                "auroc": MacroAUROC("binary", 2),
                "average_precision": tm.BinaryAveragePrecision(),
                "ece": BinaryCalibrationError(),
            }
        )
    if task == "multilabel":
        return MetricCollection(
            {
                "balanced_accuracy": LabelBalancedAccuracy(num_classes),
                "auroc": MacroAUROC("multilabel", num_classes),
                "average_precision": tm.MultilabelAveragePrecision(num_classes),
                "f1": tm.MultilabelF1Score(num_classes),
            }
        )
    metrics = {
        "accuracy": tm.MulticlassAccuracy(num_classes, average="micro"),
        "balanced_accuracy": BalancedAccuracy(num_classes),
        "auroc": MacroAUROC("multiclass", num_classes),
        "ece": tm.MulticlassCalibrationError(num_classes),
    }
    if task == "ordinal":
        metrics["qwk"] = tm.MulticlassCohenKappa(num_classes, weights="quadratic")
    return MetricCollection(metrics)


class BinaryBalancedAccuracy(BalancedAccuracy):
    """Balanced accuracy of the positive class's probability, (B,), at the threshold 1/2."""

    def __init__(self) -> None:
        super().__init__(2)

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Count a batch."""
        super().update((prediction > 0.5).long(), target)


class BinaryCalibrationError(tm.MulticlassCalibrationError):
    """Calibration error of the confidence in the predicted class, as for more classes; of probabilities, (B,).

    torchmetrics' binary one is of the positive class's probability instead.
    """

    def __init__(self) -> None:
        super().__init__(2)

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Count a batch."""
        super().update(torch.stack([1 - preds, preds], 1), target)

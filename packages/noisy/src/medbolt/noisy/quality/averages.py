"""What is remembered of each training sample to judge its label: the label as given, and the average prediction."""

import torch
from torch import Tensor

from medbolt.core.memory import SampleMemory
from medbolt.core.objective.step import TrainingStep
from medbolt.noisy.one_class import require_one_class
from medbolt.noisy.selection.labels import Labels
from medbolt.noisy.selection.probabilities import log_probabilities


def prediction_of(step: TrainingStep, labels: Labels | None) -> tuple[Tensor, Tensor]:
    """Return detached log-probabilities, (B, K) float32, and given labels, (B,) int64, of a batch.

    Args:
        step: The training step.
        labels: Given labels by index; without them the target counts, of soft targets the most probable class.

    Raises:
        UserError: if a sample has not one class: multi-label targets, masks.
    """
    logits, target = step.logits.detach(), step.target
    one_logit = logits.ndim == 1 or logits.shape[1:] == (1,)
    soft = target.ndim == 2 and target.shape[1] > 1
    require_one_class(step, "label quality is judged where each sample has one class.")
    if labels is not None:
        given = labels.given[step.index]
    elif soft:
        given = target.argmax(1)
    else:
        given = (target.flatten() > 0.5).long() if one_logit else target.long()
    return log_probabilities(logits).float(), given


def moved_average(memory: SampleMemory, index: Tensor, probability: Tensor, momentum: float) -> Tensor:
    """Return the moving averages of a batch's predictions, (B, K), which start at a sample's first prediction."""
    old, seen = memory.read(index, "probability"), memory.seen[index]
    return torch.where(seen[:, None], momentum * old + (1 - momentum) * probability, probability)

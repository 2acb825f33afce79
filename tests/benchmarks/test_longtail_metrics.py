"""Head, medium and tail metrics against the loop over classes that public code of long-tail benchmarks has."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from medbolt.longtail import ClassGroups, GroupF1, GroupRanking, GroupRecall

CLASSES, SAMPLES = 100, 100_000
GROUPS = ClassGroups.by_index(CLASSES, 36, 71)


SCORES = {
    "recall": lambda truth, predicted, score: predicted[truth].mean(),
    "f1": lambda truth, predicted, score: f1_score(truth, predicted),
    "auroc": lambda truth, predicted, score: roc_auc_score(truth, score),
    "average_precision": lambda truth, predicted, score: average_precision_score(truth, score),
}
METRICS = {"recall/": GroupRecall, "f1/": GroupF1, "": GroupRanking}


def ours(logits, target):
    found = {}
    for prefix, kind in METRICS.items():
        metric = kind(CLASSES, GROUPS, "group")
        metric.update(logits, target)
        found |= {f"{prefix}{name}": float(value) for name, value in metric.compute().items()}
    return {name: found[f"{name}/average"] for name in SCORES}


def loop(logits, target):
    """Score class after class, each against the rest, then average groups and the groups' averages."""
    predicted, found = logits.argmax(1), {}
    for name, score in SCORES.items():
        values = [score(target == c, predicted == c, logits[:, c]) for c in range(CLASSES)]
        groups = [np.mean([values[c] for c in group]) for group in (GROUPS.head, GROUPS.medium, GROUPS.tail)]
        found[name] = np.mean(groups)
    return found


def test_all_classes_at_once(figures):
    generator = torch.Generator().manual_seed(0)
    target = torch.randint(0, CLASSES, (SAMPLES,), generator=generator)
    logits = torch.randn(SAMPLES, CLASSES, generator=generator)
    logits[torch.arange(SAMPLES), target] += 2
    found: list[dict] = [{}, {}]
    ratio = figures.compare(
        f"recall, F1, AUROC, AP of {CLASSES} classes, {SAMPLES:,} samples / loop over classes with scikit-learn",
        lambda: found[0].update(ours(logits, target)),
        lambda: found[1].update(loop(logits.numpy(), target.numpy())),
        "<= 0.05",
        rounds=1,
    )
    assert found[0] == pytest.approx(found[1], abs=1e-6)
    assert ratio < 0.1

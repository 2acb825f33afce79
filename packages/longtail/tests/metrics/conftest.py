"""Predictions of six classes, one of which never occurs and one of which is never predicted."""

import pytest
import torch

from medbolt.longtail import ClassGroups


@pytest.fixture
def groups():
    return ClassGroups.by_index(6, 2, 4)


@pytest.fixture
def scores():
    scores = torch.randn(60, 6, generator=torch.Generator().manual_seed(0))
    scores[:, 1] -= 9
    return (scores * 4).round() / 4  # with ties


@pytest.fixture
def target():
    target = torch.randint(0, 6, (60,), generator=torch.Generator().manual_seed(1))
    return target.where(target != 5, 0)


@pytest.fixture
def fed():
    """Feed a metric in batches of 16 and return what it computes, as floats."""

    def feed(metric, scores, target):
        for part in torch.arange(len(target)).split(16):
            metric.update(scores[part], target[part])
        return {name: float(value) for name, value in metric.compute().items()}

    return feed


@pytest.fixture
def by_group():
    """Return the means of values by class for head (0, 1), medium (2, 3), tail (4; 5 never occurs), in a loop."""

    def means(values, average):
        parts = {"head": values[:2], "medium": values[2:4], "tail": values[4:5]}
        means = {name: sum(part) / len(part) for name, part in parts.items()}
        overall = list(means.values()) if average == "group" else values[:5]
        return means | {"average": sum(overall) / len(overall)}

    return means

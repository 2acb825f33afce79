import math

import pytest
import torch

from medbolt.longtail import TwoWayLoss


def ranking(values, present, positive, negative):
    up = sum(math.exp(-z / positive) for z, y in zip(values, present, strict=True) if y) ** positive
    down = sum(math.exp(z / negative) for z, y in zip(values, present, strict=True) if not y) ** negative
    return math.log1p(up * down)


def slow(logits, labels, positive, negative):
    rows = [ranking(z, y, positive, negative) for z, y in zip(logits.tolist(), labels.tolist(), strict=True) if any(y)]
    columns = zip(logits.T.tolist(), labels.T.tolist(), strict=True)
    columns = [ranking(z, y, positive, negative) for z, y in columns if any(y)]
    return sum(rows) / len(rows) + sum(columns) / len(columns)


def test_equals_the_formula_row_by_row_and_column_by_column(logits, labels):
    assert TwoWayLoss()(logits, labels).item() == pytest.approx(slow(logits, labels, 4.0, 1.0))
    assert TwoWayLoss(2.0, 0.5)(logits, labels).item() == pytest.approx(slow(logits, labels, 2.0, 0.5))


def test_perfectly_ranked_labels_cost_nothing(labels):
    assert TwoWayLoss()(200 * (2 * labels - 1), labels).item() == pytest.approx(0, abs=1e-12)


def test_a_batch_without_present_labels_costs_nothing(logits, labels):
    logits.requires_grad_()
    loss = TwoWayLoss()(logits, torch.zeros_like(labels))
    loss.backward()
    assert loss == 0
    assert (logits.grad == 0).all()


def test_a_temperature_that_is_not_positive_is_refused():
    with pytest.raises(ValueError, match="temperatures must be positive"):
        TwoWayLoss(0.0)

"""Prediction tables that the tests of this folder share."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from medbolt.core.predictions import Predictions

NAMES = ("healthy", "mild", "severe")


@pytest.fixture
def make_table() -> Callable[..., Predictions]:
    """Return a function that makes a table of three classes, of a model that is the better the higher its skill."""

    def make(n: int = 600, skill: float = 2.0, domain_names=(), run=None, target=None, **columns) -> Predictions:
        rng = np.random.default_rng(0)
        target = rng.integers(0, 3, n) if target is None else np.asarray(target)
        logits = skill * np.eye(3)[target] + rng.normal(size=(len(target), 3))
        probability = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        frame = {"id": [f"img{i}" for i in range(len(target))], "target": target, "method": "baseline"}
        frame |= {f"p_{k}": probability[:, k] for k in range(3)}
        return Predictions(pd.DataFrame(frame | columns), NAMES, domain_names, run or {})

    return make


@pytest.fixture
def multilabel() -> Predictions:
    """Return a table of three findings that can occur together."""
    rng = np.random.default_rng(0)
    target = rng.integers(0, 2, (300, 3))
    probability = 1 / (1 + np.exp(-(2 * target - 1 + rng.normal(size=(300, 3)))))
    frame = {"id": np.arange(300)} | {f"p_{k}": probability[:, k] for k in range(3)}
    return Predictions(pd.DataFrame(frame | {f"target_{k}": target[:, k] for k in range(3)}), NAMES)

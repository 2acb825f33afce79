"""What is tuned, fitted and reported after training, and a head that keeps a mean: on two processes as on one."""

import os
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import ImageDataset
from medbolt.longtail import (
    DeconfoundedHead,
    EvaluationHead,
    LongTailReport,
    NearestClassMeanHead,
    PosthocLogitAdjustment,
    ReplaceHead,
    TauNormalizedHead,
    TemperatureScaling,
)

pytestmark = pytest.mark.ddp


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes; features come to a linear head."""

    def __init__(self) -> None:
        super().__init__(0.1)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


class Learnable(ToyImages):
    """Classes differ in brightness, not always."""

    def load(self, split: Any) -> ImageDataset:
        dataset = super().load(split)
        images: Any = dataset.images
        shift = 20 * (torch.arange(len(images)) % 3)
        return replace(dataset, images=images // 2 + shift[:, None, None, None].to(torch.uint8))


def data() -> ToyImages:
    return Learnable({"train": 32, "val": 11, "test": 11}, batch_size=16 // int(os.environ.get("WORLD_SIZE", "1")))


def posthoc() -> dict[str, Any]:
    adjustment = PosthocLogitAdjustment(None, class_counts=[20, 8, 4])
    scaling, report = TemperatureScaling(bias=True), LongTailReport(10, 11, ranking="always")
    module = Plain()
    fit = trainer(adjustment, scaling, report, epochs=3)
    fit.fit(module, datamodule=data())
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    (tested,) = fit.test(module, datamodule=data(), verbose=False)
    found = scaling.calibration
    assert found is not None
    fresh = TemperatureScaling()
    trainer(fresh).test(module, datamodule=data(), verbose=False)
    assert fresh.calibration is not None
    values = [found.temperature, *(found.bias or []), fresh.calibration.temperature]
    return {"tau": adjustment.tau, "values": values, "logged": logged, "tested": tested}


def heads() -> dict[str, Any]:
    module = Plain()
    trainer(ReplaceHead(DeconfoundedHead, "model.3"), epochs=2).fit(module, datamodule=data())
    found: dict[str, Any] = {"weights": weights(module), "mean": module.model[3].mean}
    for name, head in (("ncm", NearestClassMeanHead), ("tau", partial(TauNormalizedHead, tau=None))):
        test = trainer(EvaluationHead(head, "model.3"), LongTailReport(1, 1))
        (found[name],) = test.test(Plain(), datamodule=data(), verbose=False)
    return found


def everything() -> dict[str, dict[str, Any]]:
    return {"posthoc": posthoc(), "heads": heads()}


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


def test_two_processes_tune_and_report_what_one_does(results):
    one = results[0]["posthoc"]
    assert {"val/posthoc_tau", "val/recall/head", "val/auroc/average"} <= set(one["logged"])
    for process in results[1]:
        two = process["posthoc"]
        assert two["tau"] == one["tau"]
        assert two["values"] == pytest.approx(one["values"], rel=1e-4)
        assert two["logged"] == pytest.approx(one["logged"], abs=1e-5)
        assert two["tested"] == pytest.approx(one["tested"], abs=1e-5)
    assert results[1][0]["posthoc"]["values"] == results[1][1]["posthoc"]["values"]


def test_two_processes_move_a_head_s_mean_and_fit_heads_as_one_does(results):
    one = results[0]["heads"]
    for process in results[1]:
        two = process["heads"]
        torch.testing.assert_close(two["mean"], one["mean"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(two["weights"], one["weights"], rtol=0, atol=1e-5)
        for name in ("ncm", "tau"):
            assert two[name] == pytest.approx(one[name], abs=1e-5)

"""Sample selection over all processes' batches together: two processes with batch B do what one does with 2 B."""

import os
from typing import Any

import pytest
import torch
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.noisy import (
    CoDis,
    CollapseMonitor,
    CoTeaching,
    CoTeachingPlus,
    JoCoR,
    MemorizationCurves,
    NoisyLabels,
    SelectionQuality,
    SmallLossSelection,
    SymmetricNoise,
)

pytestmark = pytest.mark.ddp
METHODS = [SmallLossSelection, CoTeaching, CoTeachingPlus, JoCoR, CoDis]


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes."""

    def __init__(self) -> None:
        super().__init__(0.1)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))

    def validation_step(self, batch: dict[str, Any], batch_idx: int) -> dict[str, torch.Tensor]:
        return {"probability": self.model(batch["image"]).softmax(1)}


class Keeps(SelectionQuality):
    """Also keeps the indices selected in each batch."""

    def __init__(self, method: SmallLossSelection) -> None:
        super().__init__()
        self.method, self.kept = method, []

    def on_train_batch_end(self, *arguments: Any) -> None:
        super().on_train_batch_end(*arguments)
        selection = self.method.selection
        self.kept.append(selection.index[selection.kept].tolist())


def fitted(method: SmallLossSelection) -> dict[str, Any]:
    module, keeps = Plain(), Keeps(method)
    batch = 16 // int(os.environ.get("WORLD_SIZE", "1"))
    data = NoisyLabels(ToyImages({"train": 32, "val": 11}, batch_size=batch), SymmetricNoise(0.4))
    fit = trainer(MemorizationCurves(), method, keeps, CollapseMonitor(), epochs=3)
    fit.fit(module, datamodule=data)
    logged = {name: float(value) for name, value in fit.callback_metrics.items()}
    peer = torch.empty(0) if method.peer is None else weights(method.peer)
    return {"weights": torch.cat([weights(module), peer]), "kept": keeps.kept, "logged": logged}


def everything() -> dict[str, dict[str, Any]]:
    found = {}
    for method in METHODS:
        options = {"warmup_epochs": 1} if method is CoTeachingPlus else {}
        found[method.__name__] = fitted(method(0.4, gradual_epochs=1, scope="global", **options))
    return found | {"local": fitted(CoTeaching(0.4, gradual_epochs=1))}


@pytest.fixture(scope="module")
def results() -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What one process gives, and what each of two gives."""
    (one,) = run(everything, processes=1)
    return one, run(everything)


@pytest.mark.parametrize("name", [method.__name__ for method in METHODS])
def test_two_processes_select_and_learn_what_one_does(results, name):
    one, two = results[0][name], [process[name] for process in results[1]]
    assert len(one["kept"]) == 3 * 2
    for whole, *parts in zip(one["kept"], *(process["kept"] for process in two), strict=True):
        assert sorted(parts[0] + parts[1]) == sorted(whole)
    if name != "CoTeachingPlus":
        assert [len(kept) for kept in one["kept"]] == [16] * 2 + [9] * 4
    assert any(len(process[0]) != len(process[1]) for process in zip(*(p["kept"] for p in two), strict=True))
    for process in two:
        torch.testing.assert_close(process["weights"], one["weights"], rtol=0, atol=1e-6)
        assert {"lnl/select/precision", "lnl/mem/memorised", "val/dominant_share"} <= set(process["logged"])
        assert process["logged"] == pytest.approx(one["logged"])


def test_local_selection_keeps_the_processes_in_step(results):
    two = [process["local"] for process in results[1]]
    assert torch.equal(two[0]["weights"], two[1]["weights"])
    assert two[0]["logged"] == pytest.approx(two[1]["logged"])
    assert [len(kept) for kept in two[0]["kept"]] == [8] * 2 + [4] * 4

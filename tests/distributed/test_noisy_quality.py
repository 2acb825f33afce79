"""What label quality remembers, how it weights and what ``medbolt issues`` finds is the same on two processes."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from processes import run
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import read_predictions
from medbolt.core.cli.main import main
from medbolt.noisy import ConfidentWeighting, LabelQuality

pytestmark = pytest.mark.ddp


NETWORK = """
from torch import nn


class Network(nn.Sequential):
    def __init__(self, num_classes: int, inputs: int = 192):
        super().__init__(nn.Flatten(), nn.Linear(inputs, num_classes))
"""
CONFIG = """
data:
  class_path: toys.ToyImages
  init_args: {sizes: {train: 32}, batch_size: 8}
model:
  class_path: medbolt.core.ClassificationTask
  init_args: {model: {class_path: own_network.Network}}
trainer: {accelerator: cpu, max_epochs: 2, enable_progress_bar: false, enable_model_summary: false}
"""


class Plain(ToyClassifier):
    """Without batch norm and dropout, which differ between processes."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))


def fits(folder: Path) -> dict[str, Any]:
    world = int(os.environ.get("WORLD_SIZE", "1"))
    module, quality, weighting = Plain(), LabelQuality(folder=folder), ConfidentWeighting(start_epoch=1)
    weighting_last = trainer(weighting, quality, epochs=3)
    weighting_last.fit(module, datamodule=ToyImages({"train": 48}, batch_size=8 // world))
    assert quality.memory is not None
    assert weighting.memory is not None
    return {
        "quality": quality.memory.fields,
        "weighting": weighting.memory.fields,
        "weights": weights(module),
        "rate": weighting_last.callback_metrics["lnl/estimated_rate"],
        "table": (folder / "label_quality.csv").read_text(),
    }


def issues(folder: Path) -> int:
    """Run the command on all processes."""
    os.chdir(folder)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    options = {"--folds": 2, "--output": f"issues{world}", "--trainer.devices": world, "--data.batch_size": 8 // world}
    return main(["issues", "-c", "own.yaml", *(str(part) for option in options.items() for part in option)])


def numbers(table: str) -> torch.Tensor:
    """Return the numbers of a table as one vector."""
    cells = [cell for line in sorted(table.splitlines()[1:]) for cell in line.split(",")]
    return torch.tensor([float(cell) for cell in cells if cell.replace(".", "").lstrip("-").isdigit()])


def test_statistics_and_weights(tmp_path):
    (one,) = run(fits, tmp_path / "one", processes=1)
    for two in run(fits, tmp_path / "two"):
        for key in ("quality", "weighting", "weights", "rate"):
            torch.testing.assert_close(two[key], one[key], rtol=1e-3, atol=1e-4)
        assert numbers(two["table"]).shape == numbers(one["table"]).shape
    assert (one["weighting"]["weight"] == 0).any()


def test_issues(tmp_path):
    (tmp_path / "own_network.py").write_text(NETWORK)
    (tmp_path / "own.yaml").write_text(CONFIG)
    assert run(issues, tmp_path, processes=1) == [0]
    assert run(issues, tmp_path) == [0, 0]
    for fold in range(2):
        one, two = (read_predictions(tmp_path / f"issues{world}/folds/{fold}.parquet") for world in (1, 2))
        assert one.frame["id"].tolist() == two.frame["id"].tolist()
        np.testing.assert_allclose(two.probability, one.probability, atol=1e-4)
    one, two = ((tmp_path / f"issues{world}/issues.csv").read_text() for world in (1, 2))
    torch.testing.assert_close(numbers(two), numbers(one), rtol=1e-2, atol=1e-3)
    assert (tmp_path / "issues2/report.html").exists()

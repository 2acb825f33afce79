"""A working directory with a user's own data module and network, and a configuration that uses them."""

import sys
from pathlib import Path

import pytest
import yaml

_OWN_CODE = """
import torch
from torch import nn

from medbolt.core import ImageDataModule, ImageDataset, ObjectiveCallback, UserError


class OwnData(ImageDataModule):
    def __init__(self, classes: int = 3, batch_size: int = 8, num_workers: int = 0, broken: bool = False):
        super().__init__(batch_size, num_workers, image_size=None)
        self.classes, self.broken = classes, broken

    def load(self, split):
        target = torch.arange(16) % self.classes
        images = Images(self.broken)
        return ImageDataset(images, target, [f"{split}{i}" for i in range(16)])

    @property
    def class_names(self):
        return [f"class {i}" for i in range(self.classes)]


class Images:
    def __init__(self, broken):
        self.broken = broken

    def __len__(self):
        return 16

    def __getitem__(self, row):
        if self.broken:
            raise UserError(f"image {row}.png cannot be read; replace it.")
        return torch.full((3, 8, 8), row, dtype=torch.uint8)


class OwnNetwork(nn.Module):
    def __init__(self, num_classes: int, width: int = 4):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, width), nn.Linear(width, num_classes))

    def forward(self, image):
        return self.layers(image)


class OwnMethod(ObjectiveCallback):
    def setup(self, trainer, pl_module, stage):
        super().setup(trainer, pl_module, stage)
        if stage == "fit":
            self.attach(pl_module, "own", nn.Linear(2, 2))
"""


@pytest.fixture
def config(tmp_path: Path, monkeypatch):
    """Return a function that writes a configuration in the working directory, changed where a test wants it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    name = f"own_code_{abs(hash(tmp_path))}"
    (tmp_path / f"{name}.py").write_text(_OWN_CODE)
    trainer = {"max_epochs": 1, "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False}
    base = {
        "data": {"class_path": f"{name}.OwnData"},
        "model": {
            "class_path": "medbolt.core.ClassificationTask",
            "init_args": {"model": {"class_path": f"{name}.OwnNetwork"}},
        },
        "trainer": trainer,
    }

    def write(**changes) -> str:
        merged = {
            key: {**base[key], **{k: v for k, v in changes.get(key, {}).items() if k != "init_args"}} for key in base
        }
        for key, change in changes.items():
            if "init_args" in change:
                merged[key]["init_args"] = {**base[key].get("init_args", {}), **change["init_args"]}
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(merged))
        return str(path)

    return write


@pytest.fixture
def broken_package(tmp_path: Path, monkeypatch) -> str:
    """The name of an installed package whose command and exports cannot be imported."""
    site = tmp_path / "site"
    (site / "broken-1.0.dist-info").mkdir(parents=True)
    (site / "broken-1.0.dist-info/METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    points = "[medbolt.commands]\na_broken = broken:command\n[medbolt.packages]\na_broken = broken\n"
    (site / "broken-1.0.dist-info/entry_points.txt").write_text(points)
    (site / "broken.py").write_text("raise ImportError('libgone.so\\nis not there')")
    monkeypatch.syspath_prepend(site)
    return "broken"

"""Small data sets in files."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def noise() -> Callable[..., np.ndarray]:
    """Return a function that makes an RGB picture which no other seed gives."""

    def make(seed: int, height: int = 12, width: int = 16) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)

    return make


@pytest.fixture
def table(tmp_path: Path, noise: Callable[..., np.ndarray]) -> Callable[..., Path]:
    """Return a function that writes a manifest with the given columns, and a picture for every name in ``image``."""

    def write(**columns: list) -> Path:
        for number, name in enumerate(columns.get("image", [])):
            if isinstance(name, str) and name and not (tmp_path / name).exists():
                (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(noise(number)).save(tmp_path / name)
        lines = [",".join(columns), *(",".join(map(str, row)) for row in zip(*columns.values(), strict=True))]
        path = tmp_path / "labels.csv"
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


@pytest.fixture
def ten(table: Callable[..., Path]) -> Path:
    """A manifest of ten pictures, two classes, five patients and given splits."""
    return table(
        image=[f"{i}.png" for i in range(10)],
        label=["a", "b"] * 5,
        patient=[f"p{i // 2}" for i in range(10)],
        split=["train"] * 6 + ["val"] * 2 + ["test"] * 2,
    )

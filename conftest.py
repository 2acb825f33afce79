"""Names that every doctest may use, and the folder of the shared data."""

import os
from pathlib import Path

import pytest
import torch


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, object]) -> None:
    doctest_namespace["torch"] = torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the shared data sets; the test is skipped where there is none."""
    folder = Path(os.environ.get("MEDBOLT_DATA", Path(__file__).parent.parent / "shared/data"))
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}; set MEDBOLT_DATA")
    return folder

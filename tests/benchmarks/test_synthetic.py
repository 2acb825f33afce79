"""How fast the embedded data set is drawn, and how long the quickstart takes."""

import subprocess
import sys
import time
from pathlib import Path

import torch

from medbolt.core import SyntheticFundus

QUICKSTART = Path(__file__).resolve().parents[2] / "lightning_configs/quickstart.yaml"


def test_synthetic_photographs_with_all_truths(figures):
    """Pictures of 128 px with lesion masks, raters' outlines, grade and report, on one core."""
    data, number, threads = SyntheticFundus(1000, 128), 150, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for index in range(8):
            data[index]
        start = time.perf_counter()
        for index in range(8, 8 + number):
            data[index]
        rate = number / (time.perf_counter() - start)
    finally:
        torch.set_num_threads(threads)
    figures.add("synthetic photographs of 128 px a second", f"{number} of them", rate, ">= 150")


def test_the_quickstart(figures, tmp_path):
    """Training, validation and report as README's first command runs them, after the set-up."""
    command = [sys.executable, "-m", "medbolt.core.cli.main", "fit", "--config", str(QUICKSTART)]
    start = time.perf_counter()
    subprocess.run(command, cwd=tmp_path, check=True)
    seconds = time.perf_counter() - start
    figures.add("quickstart, seconds", f"{seconds:.0f} s", seconds, "<= 180")

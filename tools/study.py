"""Run a grid of trainings on this machine's cores, resumably, and make the table of its results.

    python tools/study.py run studies/noisy_labels.yaml runs/noisy_labels --workers 2
    python tools/study.py table studies/noisy_labels.yaml runs/noisy_labels

A study file names layers of ``lightning_configs`` and further options for every run (``layers``, ``options``), axes
whose values add their own, seeds, and the options that take the seed. Every combination is one ``medbolt fit`` in a
folder of its own; it is done when its result file is there, so a study that was stopped goes on with what is missing.
"""

import argparse
import contextlib
import itertools
import json
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import yaml
from tqdm import tqdm

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """One training: the values of the axes, the seed, and the arguments of ``medbolt``."""

    values: dict[str, str]
    seed: int
    arguments: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return "-".join([*self.values.values(), str(self.seed)])


def runs_of(study: dict[str, Any]) -> Iterator[Run]:
    """Yield all runs, the seeds outermost, so that a study stopped halfway has whole tables of the first seeds."""
    axes = study["axes"]
    for seed, *names in itertools.product(study["seeds"], *axes.values()):
        values = dict(zip(axes, names, strict=True))
        parts = [study, *((axes[axis][name] or {}) for axis, name in values.items())]
        arguments = ["fit"]
        for part in parts:
            for layer in part.get("layers", []):
                arguments += ["-c", str(ROOT / "lightning_configs" / layer)]
        options = {key: value for part in parts for key, value in part.get("options", {}).items()}
        options |= dict.fromkeys(study["seed_options"], seed)
        arguments += [
            f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in options.items()
        ]
        yield Run(values, seed, tuple(arguments))


def train(run: Run, folder: Path) -> str:
    """Train in this process; return its name, and what it failed with if it did."""
    import torch

    from medbolt.core.cli.main import main

    torch.set_num_threads(1)
    home = folder / run.name
    home.mkdir(parents=True, exist_ok=True)
    os.environ["MEDBOLT_TRACEBACK"] = "1"
    with (home / "log.txt").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        place = {"save_dir": str(home), "name": "", "version": ""}
        logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": place}
        quiet = [f"--trainer.logger={json.dumps(logger)}", "--trainer.enable_progress_bar=false"]
        try:
            main([*run.arguments, *quiet])
        except BaseException:
            traceback.print_exc()
            return run.name
    return ""


def run_all(study: dict[str, Any], folder: Path, workers: int) -> int:
    """Train what is missing; return the exit code."""
    todo = [run for run in runs_of(study) if not (folder / run.name / study["result"]).exists()]
    context = get_context("forkserver")
    context.set_forkserver_preload(["lightning.pytorch.cli", "timm", "medbolt.core.tasks.classification"])
    failed = []
    with context.Pool(workers, maxtasksperchild=1) as pool:
        results = [pool.apply_async(train, (run, folder)) for run in todo]
        for result in tqdm(results, desc="runs"):
            failed += [name] if (name := result.get()) else []
    for name in failed:
        sys.stderr.write(f"failed: {name}, see {folder / name / 'log.txt'}\n")
    return 1 if failed else 0


def rows_of(study: dict[str, Any], folder: Path) -> Iterator[dict[str, Any]]:
    """Yield a row of values, seed and results for every run that is done."""
    for run in runs_of(study):
        path = folder / run.name / study["result"]
        if path.exists():
            yield {**run.values, "seed": run.seed, **json.loads(path.read_text())["summary"]}


def table(study: dict[str, Any], folder: Path) -> str:
    """Return a Markdown table: rows and columns as the study says, the mean and the 95 % interval over seeds."""
    import pandas as pd

    from medbolt.core.stats import seed_interval

    frame = pd.DataFrame(rows_of(study, folder))
    lines = []
    for metric in study["metrics"]:
        columns = study["columns"]
        keys = list(frame[columns].drop_duplicates().itertuples(index=False, name=None))
        lines += [f"\n{metric}\n", "| " + " | ".join([study["rows"], *(" ".join(key) for key in keys)]) + " |"]
        lines.append("|" + "---|" * (len(keys) + 1))
        for row in study["axes"][study["rows"]]:
            cells = []
            for key in keys:
                chosen = (frame[columns] == list(key)).all(axis=1) & (frame[study["rows"]] == row)
                cells.append(_cell(frame[chosen][metric].to_numpy(), seed_interval))
            lines.append("| " + " | ".join([row, *cells]) + " |")
    return "\n".join(lines)


def _cell(values: Any, interval: Any) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.1f}" if len(values) else ""
    result = interval(values)
    return f"{100 * result.estimate:.1f} ± {50 * (result.high - result.low):.1f}"


def main() -> int:
    """Run or tabulate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["run", "table"])
    parser.add_argument("study", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    study = yaml.safe_load(given.study.read_text())
    if given.action == "run":
        return run_all(study, given.folder.resolve(), given.workers)
    print(table(study, given.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())

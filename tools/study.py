"""Run a grid of trainings on this machine's cores, resumably, and make the table of its results.

    python tools/study.py run studies/noisy_labels.yaml runs/noisy_labels --workers 2
    python tools/study.py table studies/noisy_labels.yaml

A study file names layers of ``lightning_configs`` and further options for every run (``layers``, ``options``), axes
whose values add their own, seeds, and the options that take the seed; ``prepare`` lists ``medbolt`` commands that come
first. Every combination is one ``medbolt fit`` in a folder of its own. Its results become a row of the CSV file beside
the study file, which is kept in the repository: what has a row is not run again, so a study that was stopped goes on
with what is missing, also on another machine.
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
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from medbolt.core.files import atomic_write

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """One training: the values of the axes, the seed, the layers, and a last layer with the options."""

    values: dict[str, str]
    seed: int
    layers: tuple[Path, ...]
    options: dict[str, Any]

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
        layers = tuple(ROOT / "lightning_configs" / layer for part in parts for layer in part.get("layers", []))
        options = {key: value for part in parts for key, value in part.get("options", {}).items()}
        yield Run(values, seed, layers, nested(options | dict.fromkeys(study["seed_options"], seed)))


def nested(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with dotted names as the tree of a configuration file.

    Example:
        >>> nested({"trainer.max_epochs": 1, "trainer.precision": 32})
        {'trainer': {'max_epochs': 1, 'precision': 32}}
    """
    tree: dict[str, Any] = {}
    for name, value in options.items():
        *path, last = name.split(".")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = value
    return tree


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
        trainer = run.options.get("trainer", {}) | {"logger": logger, "enable_progress_bar": False}
        options = home / "options.yaml"
        options.write_text(yaml.safe_dump(run.options | {"trainer": trainer}))
        try:
            main(["fit", *(argument for layer in (*run.layers, options) for argument in ("-c", str(layer)))])
        except BaseException:
            traceback.print_exc()
            return run.name
    return ""


def run_all(study: dict[str, Any], folder: Path, results: Path, workers: int) -> int:
    """Train what is missing; return the exit code."""
    from medbolt.core.cli.main import main

    todo = missing(study, collect(study, folder, results))
    for arguments in study.get("prepare", []) if todo else []:
        main(arguments)
    context = get_context("forkserver")
    context.set_forkserver_preload(["lightning.pytorch.cli", "timm", "medbolt.core.tasks.classification"])
    failed = []
    with context.Pool(workers, maxtasksperchild=1) as pool:
        for name in tqdm(pool.imap_unordered(partial(train, folder=folder), todo), desc="runs", total=len(todo)):
            failed += [name] if name else []
            collect(study, folder, results)
    for name in failed:
        sys.stderr.write(f"failed: {name}, see {folder / name / 'log.txt'}\n")
    return 1 if failed else 0


def missing(study: dict[str, Any], rows: pd.DataFrame) -> list[Run]:
    """Return the runs without a row."""
    done = set(rows[[*study["axes"], "seed"]].itertuples(index=False, name=None))
    return [run for run in runs_of(study) if (*run.values.values(), run.seed) not in done]


def collect(study: dict[str, Any], folder: Path, results: Path) -> pd.DataFrame:
    """Add the results in the runs' folders to the CSV file, and return all rows."""
    keys = [*study["axes"], "seed"]
    rows = pd.read_csv(results) if results.exists() else pd.DataFrame(columns=keys)
    found = [
        {**run.values, "seed": run.seed, **json.loads(path.read_text())["summary"]}
        for run in missing(study, rows)
        if (path := folder / run.name / study["result"]).exists()
    ]
    if found:
        rows = pd.DataFrame([*rows.to_dict("records"), *found]).sort_values(keys, ignore_index=True)
        with atomic_write(results) as path:
            rows.to_csv(path, index=False, float_format="%.6g")
    return rows


def table(study: dict[str, Any], frame: pd.DataFrame) -> str:
    """Return a Markdown table: rows and columns as the study says, the mean and the 95 % interval over seeds."""
    from medbolt.core.stats import seed_interval

    lines = []
    for metric in study["metrics"]:
        columns = study["columns"]
        keys = list(itertools.product(*(study["axes"][column] for column in columns)))
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
    parser.add_argument("folder", type=Path, nargs="?", default=Path("runs"), help="where the runs go")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    given = parser.parse_args()
    study = yaml.safe_load(given.study.read_text())
    results = given.study.with_suffix(".csv")
    if given.action == "run":
        return run_all(study, given.folder.resolve(), results, given.workers)
    print(table(study, pd.read_csv(results)))
    return 0


if __name__ == "__main__":
    sys.exit(main())

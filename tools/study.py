"""Run a grid of trainings on this machine's cores, resumably, and make the table of its results.

    python tools/study.py run studies/noisy_labels.yaml runs/noisy_labels --workers 2
    python tools/study.py table studies/noisy_labels.yaml

A study file names layers of ``lightning_configs`` and further options for every run (``layers``, ``options``), axes
whose values add their own (and ``arguments``, for what only the command line can say), seeds, and the options that take
the seed; ``prepare`` lists ``medbolt`` commands that come
first. Every combination is a run in a folder of its own: ``medbolt fit``, or the ``commands`` listed, for which a key
of their name adds options (``test: {ckpt_path: $home/final.ckpt}``). In options ``$home`` is the run's folder,
``$seed`` its seed, ``$runs`` the folder of all runs, ``$data`` the value of the axis ``data``, and so on. A value that
``needs`` another of its axis runs after it and finds its files in ``$needed``.

The results of a run become a row of the CSV file beside the study file, which is kept in the repository: what has a row
is not run again, so a study that was stopped goes on with what is missing, also on another machine. Beside it the rows
stand as Markdown tables, which the documentation includes; ``table`` makes them anew.
"""

import argparse
import contextlib
import itertools
import json
import math
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from string import Template
from typing import Any

import pandas as pd
import yaml
from tqdm import tqdm

from medbolt.core.files import atomic_write
from medbolt.core.stats import seed_interval

ROOT = Path(__file__).parent.parent


@dataclass(frozen=True)
class Run:
    """One training: the values of the axes, the seed, the layers, a last layer with the options, further arguments."""

    values: dict[str, str]
    seed: int
    layers: tuple[Path, ...]
    options: dict[str, Any]
    arguments: list[str]
    needs: str = ""
    """Name of the run that comes first."""

    @property
    def name(self) -> str:
        """Name of the run's folder."""
        return name_of(self.values, self.seed)

    def filled(self, options: Any, folder: Path) -> Any:
        """Return options with the names of this run's folders, values and seed filled in."""
        home, needed = folder / self.name, folder / self.needs
        return filled(options, self.values | {"home": home, "runs": folder, "needed": needed, "seed": self.seed})


def name_of(values: dict[str, str], seed: int) -> str:
    """Return the name of a run's folder."""
    return "-".join([*values.values(), str(seed)])


def filled(options: Any, names: dict[str, Any]) -> Any:
    """Return options with ``$name`` replaced in all strings.

    Example:
        >>> filled({"ckpt_path": "$home/final.ckpt", "epochs": 3}, {"home": "runs/a"})
        {'ckpt_path': 'runs/a/final.ckpt', 'epochs': 3}
    """
    if isinstance(options, dict):
        return {key: filled(value, names) for key, value in options.items()}
    if isinstance(options, list):
        return [filled(value, names) for value in options]
    return Template(options).safe_substitute(names) if isinstance(options, str) else options


def runs_of(study: dict[str, Any]) -> Iterator[Run]:
    """Yield all runs, the seeds outermost, so that a study stopped halfway has whole tables of the first seeds."""
    axes = study["axes"]
    for seed, *names in itertools.product(study["seeds"], *axes.values()):
        values = dict(zip(axes, names, strict=True))
        parts = [study, *((axes[axis][name] or {}) for axis, name in values.items())]
        layers = tuple(ROOT / "lightning_configs" / layer for part in parts for layer in part.get("layers", []))
        options = {key: value for part in parts for key, value in part.get("options", {}).items()}
        arguments = [argument for part in parts for argument in part.get("arguments", [])]
        needs = {axis: value["needs"] for axis, name in values.items() if "needs" in (value := axes[axis][name] or {})}
        first = name_of(values | needs, seed) if needs else ""
        options |= dict.fromkeys(study["seed_options"], seed)
        yield Run(values, seed, layers, nested(options), arguments, first)


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
        branch[last] = deepcopy(value)
    return tree


def train(run: Run, study: dict[str, Any], folder: Path) -> str:
    """Run the commands in this process; return the run's name if one failed."""
    import torch

    from medbolt.core.cli.main import main

    torch.set_num_threads(1)
    home = folder / run.name
    shutil.rmtree(home, ignore_errors=True)  # what a run that was stopped left must not pass for this one's
    home.mkdir(parents=True)
    os.environ["MEDBOLT_TRACEBACK"] = "1"
    options, arguments = run.filled(run.options, folder), run.filled(run.arguments, folder)
    with (home / "log.txt").open("w") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        try:
            for command in study.get("commands", ["fit"]):
                place = {"save_dir": str(home), "name": "", "version": "" if command == "fit" else command}
                logger = {"class_path": "lightning.pytorch.loggers.CSVLogger", "init_args": place}
                trainer = options.get("trainer", {}) | {"logger": logger, "enable_progress_bar": False}
                own = run.filled(study.get(command, {}), folder)
                last = home / f"{command}.yaml"
                last.write_text(yaml.safe_dump(options | {"trainer": trainer} | own))
                layers = [argument for layer in (*run.layers, last) for argument in ("-c", str(layer))]
                main([command, *layers, *arguments])
        except BaseException:
            traceback.print_exc()
            return run.name
    return ""


def run_all(study: dict[str, Any], folder: Path, results: Path, workers: int) -> int:
    """Train what is missing; return the exit code."""
    from medbolt.core.cli.main import main

    todo = missing(study, collect(study, folder, results))
    # what a missing run builds on may have its row from another machine
    needed = {run.needs for run in todo if not (folder / run.needs / study["result"]).exists()} - {""}
    todo = [run for run in runs_of(study) if run in todo or run.name in needed]
    for arguments in study.get("prepare", []) if todo else []:
        main(arguments)
    context = get_context("forkserver")
    context.set_forkserver_preload(["lightning.pytorch.cli", "timm", "medbolt.core.tasks.classification"])
    failed = []
    with context.Pool(workers, maxtasksperchild=1) as pool, tqdm(desc="runs", total=len(todo)) as progress:
        for wave in ([run for run in todo if not run.needs], [run for run in todo if run.needs]):
            for name in pool.imap_unordered(partial(train, study=study, folder=folder), wave):
                failed += [name] if name else []
                collect(study, folder, results)
                progress.update()
    for name in failed:
        sys.stderr.write(f"failed: {name}, see {folder / name / 'log.txt'}\n")
    return 1 if failed else 0


def missing(study: dict[str, Any], rows: pd.DataFrame) -> list[Run]:
    """Return the runs without a row."""
    done = set(rows[[*study["axes"], "seed"]].itertuples(index=False, name=None))
    return [run for run in runs_of(study) if (*run.values.values(), run.seed) not in done]


def collect(study: dict[str, Any], folder: Path, results: Path) -> pd.DataFrame:
    """Add the results in the runs' folders to the CSV file and its tables, and return all rows."""
    keys = [*study["axes"], "seed"]
    rows = pd.read_csv(results) if results.exists() else pd.DataFrame(columns=keys)
    found = [
        {**run.values, "seed": run.seed, **read_result(path)}
        for run in missing(study, rows)
        if (path := folder / run.name / study["result"]).exists()
    ]
    if found:
        rows = pd.DataFrame([*rows.to_dict("records"), *found]).sort_values(keys, ignore_index=True)
        with atomic_write(results) as path:
            rows.to_csv(path, index=False, float_format="%.6g")
        write_table(study, results)
    return rows


def write_table(study: dict[str, Any], results: Path) -> None:
    """Write the rows of the CSV file as Markdown beside it."""
    with atomic_write(results.with_suffix(".md")) as path:
        path.write_text(table(study, pd.read_csv(results)))


def read_result(path: Path) -> dict[str, float]:
    """Return the ``summary`` of a JSON file, or the last row of a CSV file with metrics of a test."""
    if path.suffix == ".json":
        return json.loads(path.read_text())["summary"]
    row = pd.read_csv(path).iloc[-1].drop(["epoch", "step"], errors="ignore").dropna()
    return {str(name): float(value) for name, value in row.items()}


def table(study: dict[str, Any], frame: pd.DataFrame) -> str:
    """Return Markdown tables: which, their rows and columns the study says, with means and 95 % intervals over seeds.

    ``metric`` is an axis here, with the names that ``metrics`` gives; ``rank`` names the metric whose ranks in a table,
    averaged over what has all rows, become a last column.
    """
    axes = study["axes"] | {"metric": study["metrics"]}
    frame = frame.melt([*study["axes"], "seed"], [*study["metrics"]], "metric", "value")
    lines = []
    for name in axes[study["tables"]]:
        own = frame[frame[study["tables"]] == name]
        columns = list(itertools.product(*(axes[axis] for axis in study["columns"])))
        ranks = (
            _ranks(own[own["metric"] == study["rank"]], study["rows"], len(axes[study["rows"]]))
            if "rank" in study
            else {}
        )
        head = [study["rows"], *(" ".join(study["metrics"].get(part, part) for part in column) for column in columns)]
        head += ["rank"] if ranks else []
        lines += [f"**{study['metrics'].get(name, name)}**\n", _line(head), "|" + "---|" * len(head)]
        for row in axes[study["rows"]]:
            of_row = own[own[study["rows"]] == row]
            chosen = [(of_row[study["columns"]] == list(column)).all(axis=1) for column in columns]
            lines.append(
                _line([row, *(_cell(of_row[rows]["value"].to_numpy()) for rows in chosen), *ranks.get(row, [])])
            )
        lines.append("")
    return "\n".join(lines)


def _ranks(frame: pd.DataFrame, rows: str, number: int) -> dict[str, list[str]]:
    """Return the mean rank of each row over the seeds, and other axes, that have a value for each."""
    values = frame.pivot(index=rows, columns=[name for name in frame if name not in (rows, "value")], values="value")
    values = values.loc[:, values.notna().sum() == number]
    ranks = values.rank(ascending=False).mean(axis=1)
    return {name: ["" if math.isnan(rank) else f"{rank:.1f}"] for name, rank in ranks.items()}


def _line(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _cell(values: Any) -> str:
    if len(values) < 2:
        return f"{100 * values[0]:.1f}" if len(values) else ""
    result = seed_interval(values)
    return f"{100 * result.estimate:.1f} ± {50 * (result.high - result.low):.1f}"


def main() -> int:
    """Run a study or write its tables."""
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
    write_table(study, results)
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The runner of studies: what it runs, that it goes on where it stopped, and its table."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
import study
import yaml

STUDIES = sorted((Path(__file__).parent.parent / "studies").glob("*.yaml"))
SMALL = {
    "layers": ["data/synthetic_fundus.yaml", "model/resnet10t.yaml"],
    "options": {
        "trainer.max_epochs": 1,
        "trainer.accelerator": "cpu",
        "data.init_args.num_train": 100,
        "data.init_args.num_val": 5,
        "data.init_args.num_test": 5,
        "data.init_args.image_size": 32,
        "data.init_args.batch_size": 50,
        "trainer.callbacks+": {"class_path": "medbolt.noisy.CleanTestCurve"},
    },
    "seeds": [0, 1],
    "seed_options": ["seed_everything", "data.init_args.seed"],
    "axes": {"method": {"plain": None, "elr": {"layers": ["method/noisy/elr.yaml"]}}},
    "result": "test_curve.json",
    "rows": "method",
    "tables": "metric",
    "columns": ["method"],
    "metrics": {"accuracy/last": "Accuracy"},
}


def test_every_combination_is_a_run_and_the_seed_varies_last():
    runs = list(study.runs_of(SMALL))
    assert [run.name for run in runs] == ["plain-0", "elr-0", "plain-1", "elr-1"]
    assert runs[3].options["seed_everything"] == 1
    assert runs[3].options["data"]["init_args"] == {
        "num_train": 100,
        "num_val": 5,
        "num_test": 5,
        "image_size": 32,
        "batch_size": 50,
        "seed": 1,
    }
    assert [layer.name for layer in runs[3].layers] == ["synthetic_fundus.yaml", "resnet10t.yaml", "elr.yaml"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_layers_of_every_study_exist(path):
    runs = list(study.runs_of(yaml.safe_load(path.read_text())))
    assert runs
    assert all(layer.exists() for run in runs for layer in run.layers)


def test_a_second_stage_waits_for_its_first_and_finds_it(tmp_path):
    second = {"needs": "plain", "options": {"model.first": "$needed/final.ckpt", "model.own": "$home of $method $seed"}}
    second["arguments"] = ["--x=$runs"]
    staged = SMALL | {"axes": {"method": {"second": second, "plain": None}}}
    runs = {run.name: run for run in study.runs_of(staged)}
    assert (runs["second-1"].needs, runs["plain-1"].needs) == ("plain-1", "")
    second = runs["second-1"]
    assert second.filled(second.arguments, tmp_path) == [f"--x={tmp_path}"]
    model = second.filled(second.options, tmp_path)["model"]
    assert model == {"first": f"{tmp_path}/plain-1/final.ckpt", "own": f"{tmp_path}/second-1 of second 1"}


@pytest.mark.slow
def test_stages_run_one_after_the_other_and_are_tested(tmp_path):
    checkpoint = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint"}
    checkpoint["init_args"] = {"dirpath": "$home", "filename": "final", "save_weights_only": True}
    stage = {"class_path": "medbolt.longtail.TwoStageTraining"}
    second = {"needs": "plain", "options": {"trainer.callbacks+": [checkpoint, stage]}}
    second["arguments"] = ["--trainer.callbacks.init_from=$needed/final.ckpt"]
    staged = SMALL | {
        "seeds": [0],
        "options": {key: value for key, value in SMALL["options"].items() if key != "trainer.callbacks+"},
        "axes": {"method": {"second": second, "plain": {"options": {"trainer.callbacks+": [checkpoint]}}}},
        "commands": ["fit", "test"],
        "test": {"ckpt_path": "$home/final.ckpt"},
        "result": "test/metrics.csv",
        "metrics": {"test/accuracy": "Accuracy"},
    }
    results = tmp_path / "small.csv"
    assert study.run_all(staged, tmp_path, results, workers=1) == 0
    rows = pd.read_csv(results)
    assert rows["method"].tolist() == ["plain", "second"]
    assert rows["test/accuracy"].between(0, 1).all()
    # the second stage's row is lost, and so is the first one's folder: both run again
    results.write_text("\n".join(results.read_text().splitlines()[:2]) + "\n")
    for name in ("plain-0", "second-0/test"):
        shutil.rmtree(tmp_path / name)
    (tmp_path / "second-0/final.ckpt").write_text("left by a run that was stopped")
    assert study.run_all(staged, tmp_path, results, workers=1) == 0
    assert pd.read_csv(results)["method"].tolist() == ["plain", "second"]


def test_results_become_rows_once_and_outlive_the_runs(tmp_path):
    folder, results = tmp_path / "runs", tmp_path / "small.csv"
    for (name, seed), value in {("plain", 0): 0.5, ("elr", 0): 0.7}.items():
        (folder / f"{name}-{seed}").mkdir(parents=True)
        (folder / f"{name}-{seed}" / "test_curve.json").write_text(json.dumps({"summary": {"accuracy/last": value}}))
    study.collect(SMALL, folder, results)
    shutil.rmtree(folder)
    rows = study.collect(SMALL, folder, results)
    assert results.read_text().splitlines() == ["method,seed,accuracy/last", "elr,0,0.7", "plain,0,0.5"]
    assert [run.name for run in study.missing(SMALL, rows)] == ["plain-1", "elr-1"]


def test_the_table_holds_means_and_intervals():
    frame = pd.DataFrame(
        {"method": ["plain", "plain", "elr"], "seed": [0, 1, 0], "accuracy/last": [0.5, 0.6, 0.7]},
    )
    lines = study.table(SMALL, frame).splitlines()
    assert lines[0] == "**Accuracy**"
    assert lines[-2] == "| plain | 55.0 ± 63.5 |  |"  # t = 12.71 with one degree of freedom
    assert lines[-1] == "| elr |  | 70.0 |"


def test_ranks_are_of_what_every_row_has():
    frame = pd.DataFrame(
        {"method": ["plain", "elr", "plain", "elr", "plain"], "seed": [0, 0, 1, 1, 2], "x": [0.5, 0.6, 0.7, 0.2, 0.1]}
    )
    by_metric = {"tables": "metric", "columns": ["metric"], "metrics": {"x": "Recall"}, "rank": "x"}
    lines = study.table(SMALL | by_metric, frame).splitlines()
    assert lines[2] == "| method | Recall | rank |"
    assert [line.split(" | ")[-1] for line in lines[4:6]] == ["1.5 |", "1.5 |"]
    lines = study.table(SMALL | by_metric, frame[frame["seed"] != 1]).splitlines()
    assert [line.split(" | ")[-1] for line in lines[4:6]] == ["2.0 |", "1.0 |"]
    lines = study.table(SMALL | by_metric, frame[frame["method"] == "plain"]).splitlines()
    assert lines[4].endswith(" |  |"), "no seed has all rows yet"


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_published_tables_are_those_of_the_rows(path):
    if not path.with_suffix(".csv").exists():
        pytest.skip("not run yet")
    tables = study.table(yaml.safe_load(path.read_text()), pd.read_csv(path.with_suffix(".csv")))
    assert path.with_suffix(".md").read_text() == tables, f"python tools/study.py table studies/{path.name}"


@pytest.mark.slow
def test_what_is_there_is_not_run_again(tmp_path):
    results = tmp_path / "small.csv"
    results.write_text("method,seed,accuracy/last\nelr,0,2.0\n")
    one_seed = SMALL | {"seeds": [0]}
    assert study.run_all(one_seed, tmp_path, results, workers=1) == 0
    rows = pd.read_csv(results).set_index("method")["accuracy/last"]
    assert rows["elr"] == 2.0
    assert rows["plain"] <= 1


@pytest.mark.slow
def test_a_run_that_fails_is_named(tmp_path, capsys):
    broken = SMALL | {"seeds": [0], "options": {"data.init_args.nonsense": 1}}
    assert study.run_all(broken, tmp_path, tmp_path / "small.csv", workers=1) == 1
    assert f"failed: plain-0, see {tmp_path / 'plain-0' / 'log.txt'}" in capsys.readouterr().err

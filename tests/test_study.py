"""The runner of studies: what it runs, that it goes on where it stopped, and its table."""

import json
from pathlib import Path

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
    "columns": ["method"],
    "metrics": ["accuracy/last"],
}


def test_every_combination_is_a_run_and_the_seed_varies_last():
    runs = list(study.runs_of(SMALL))
    assert [run.name for run in runs] == ["plain-0", "elr-0", "plain-1", "elr-1"]
    assert runs[3].arguments[0] == "fit"
    assert runs[3].arguments[-2:] == ("--seed_everything=1", "--data.init_args.seed=1")
    layers = [argument for argument in runs[3].arguments if argument.endswith(".yaml")]
    assert [Path(layer).name for layer in layers] == ["synthetic_fundus.yaml", "resnet10t.yaml", "elr.yaml"]


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_the_layers_of_every_study_exist(path):
    runs = list(study.runs_of(yaml.safe_load(path.read_text())))
    assert runs
    assert all(Path(argument).exists() for run in runs for argument in run.arguments if argument.endswith(".yaml"))


def test_the_table_holds_means_and_intervals(tmp_path):
    for (name, seed), value in {("plain", 0): 0.5, ("plain", 1): 0.6, ("elr", 0): 0.7}.items():
        (tmp_path / f"{name}-{seed}").mkdir()
        (tmp_path / f"{name}-{seed}" / "test_curve.json").write_text(json.dumps({"summary": {"accuracy/last": value}}))
    lines = study.table(SMALL, tmp_path).splitlines()
    assert lines[-2] == "| plain | 55.0 ± 63.5 |  |"  # t = 12.71 with one degree of freedom
    assert lines[-1] == "| elr |  | 70.0 |"


@pytest.mark.slow
def test_what_is_there_is_not_run_again(tmp_path):
    done = tmp_path / "elr-0" / "test_curve.json"
    done.parent.mkdir()
    done.write_text('{"summary": {"accuracy/last": 2.0}}')
    one_seed = SMALL | {"seeds": [0]}
    assert study.run_all(one_seed, tmp_path, workers=1) == 0
    assert [row["accuracy/last"] <= 1 for row in study.rows_of(one_seed, tmp_path)] == [True, False]


@pytest.mark.slow
def test_a_run_that_fails_is_named(tmp_path, capsys):
    broken = SMALL | {"seeds": [0], "options": {"data.init_args.nonsense": 1}}
    assert study.run_all(broken, tmp_path, workers=1) == 1
    assert f"failed: plain-0, see {tmp_path / 'plain-0' / 'log.txt'}" in capsys.readouterr().err

"""``medbolt issues`` through the real command line, in this process."""

import csv
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from medbolt.core import read_predictions
from medbolt.core.cli.main import main
from medbolt.noisy import confident_joint, estimate_noise_rate, label_issues, normalized_margin

OPTIONS = ["--folds", "3", "--output", "issues", "--trainer.enable_progress_bar", "false"]


@pytest.fixture
def layers(colours, tmp_path, monkeypatch):
    """Return a function that writes a configuration and returns the command line for it."""
    monkeypatch.chdir(tmp_path)

    def write(**init_args) -> list[str]:
        inner = {"class_path": "colours_for_tests.Colours", "init_args": {"num_train": 120, **init_args}}
        noise = {"class_path": "medbolt.noisy.SymmetricNoise", "init_args": {"rate": 0.2}}
        noisy = {"class_path": "medbolt.noisy.NoisyLabels", "init_args": {"data": inner, "noise": noise}}
        model = {"model": {"class_path": "colours_for_tests.Network"}}
        model["optimizer"] = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.3}}
        config = {
            "data": noisy,
            "model": {"class_path": "medbolt.core.ClassificationTask", "init_args": model},
            "trainer": {"max_epochs": 8, "accelerator": "cpu", "enable_model_summary": False},
        }
        (tmp_path / "own.yaml").write_text(yaml.safe_dump(config))
        return ["issues", "-c", "own.yaml", *OPTIONS]

    return write


def said(capsys) -> str:
    """Return the one line on standard error that is medbolt's."""
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medbolt: error: ")]
    return line.removeprefix("medbolt: error: ")


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_finds_the_wrong_labels(colours, layers, tmp_path, capsys):
    assert main(layers()) == 0
    out = capsys.readouterr().out
    assert [f"fold {k} of 3" in out for k in (1, 2, 3)] == [True] * 3
    assert "estimated noise rate" in out
    assert "written: issues/report.html" in out

    from medbolt.noisy import CrossValidationFold, NoisyLabels, SymmetricNoise

    data = NoisyLabels(colours.Colours(120), SymmetricNoise(0.2))
    labels, p = data.train_targets, torch.zeros(120, 3, dtype=torch.float64)
    for fold in range(3):
        held_out = CrossValidationFold(data, 3, fold).dataset("test")
        predicted = read_predictions(tmp_path / f"issues/folds/{fold}.parquet")
        assert predicted.frame["id"].tolist() == held_out.ids
        p[held_out.rows] = torch.from_numpy(predicted.probability)
    rows = table(tmp_path / "issues/issues.csv")
    place = {name: position for position, name in enumerate(data.dataset("train").ids)}
    order = [place[row["id"]] for row in rows]
    margins = [float(row["normalized_margin"]) for row in rows]
    np.testing.assert_allclose(margins, normalized_margin(labels, p)[order], atol=1e-5)
    assert [row["is_issue"] == "1" for row in rows] == label_issues(labels, p)[order].tolist()
    assert [int(row["rank"]) for row in rows] == list(range(1, 121))
    assert [row["given"] for row in rows] == [data.class_names[labels[i]] for i in order]
    wrong = data.clean_targets() != labels
    flagged = label_issues(labels, p)
    assert (flagged & wrong).sum() > 0.9 * wrong.sum()
    assert (flagged & ~wrong).sum() < 0.1 * len(labels)
    first = rows[0]
    assert first["suggested"] == data.class_names[data.clean_targets()[order[0]]]
    matrix = table(tmp_path / "issues/noise_matrix.csv")
    assert [row["true"] for row in matrix] == data.class_names
    transition = [[float(row[name]) for name in data.class_names] for row in matrix]
    np.testing.assert_allclose(transition, confident_joint(labels, p).transition, atol=1e-5)
    summary = json.loads((tmp_path / "issues/summary.json").read_text())
    assert summary["noise_rate"] == pytest.approx(estimate_noise_rate(labels, p), abs=1e-5)
    assert (summary["samples"], summary["flagged"]) == (120, int(flagged.sum()))

    page = (tmp_path / "issues/report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/jpeg;base64,') == min(int(flagged.sum()), 48)
    assert "http" not in page  # it needs nothing but itself
    for text in (
        "Label issues",
        "120 training samples of 60 groups",
        "Noise matrix",
        "labelled green",
        "true noise rate",
    ):
        assert text in page
    assert f'alt="{first["id"]}"' in page
    assert "Do not trust" not in page


@pytest.mark.slow
def test_a_killed_run_goes_on_with_the_folds_that_are_left(colours, layers, tmp_path, capsys, monkeypatch):
    whole = layers()
    assert main([*whole, "--output", "whole"]) == 0
    calls = []
    fit = colours.Network.forward

    def dies(self, image):
        calls.append(len(image))
        if len(calls) == 100:  # in the second fold
            raise KeyboardInterrupt
        return fit(self, image)

    monkeypatch.setattr(colours.Network, "forward", dies)
    with pytest.raises(SystemExit):  # what Lightning makes of the interrupt
        main(whole)
    done = {path: path.stat().st_mtime_ns for path in (tmp_path / "issues/folds").glob("*.parquet")}
    assert len(done) == 1
    assert not (tmp_path / "issues/report.html").exists()
    monkeypatch.setattr(colours.Network, "forward", fit)
    capsys.readouterr()
    assert main(whole) == 0
    out = capsys.readouterr().out
    assert ["fold 1" in out, "fold 2" in out, "fold 3" in out] == [False, True, True]
    assert {path: path.stat().st_mtime_ns for path in done} == done
    for name in ("issues.csv", "noise_matrix.csv"):
        assert (tmp_path / "issues" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_what_is_done_is_not_done_again_and_nothing_else_is_mixed_in(layers, tmp_path, capsys):
    short = [*layers(), "--trainer.max_epochs", "1", "--folds", "2"]
    assert main(short) == 0
    (tmp_path / "issues/report.html").unlink()
    shutil.rmtree(tmp_path / "issues/folds/0")  # logs and checkpoints are not needed
    for change, sentence in (
        (["--trainer.max_epochs", "2"], "'issues' holds folds made with trainer.max_epochs 1, not 2; choose another"),
        (["--folds", "4"], "made with --folds 2, not 4"),
        (["--data.noise.init_args.rate", "0.3"], "'issues' holds folds of other training data; choose another"),
    ):
        capsys.readouterr()
        assert main([*short, *change]) == 2
        assert sentence in said(capsys)
    assert main([*short, "--trainer.enable_progress_bar", "true"]) == 0
    assert "fold 1" not in capsys.readouterr().out
    assert (tmp_path / "issues/report.html").exists()


def test_the_best_checkpoint_predicts_where_the_configuration_chooses_one(layers, tmp_path, monkeypatch):
    from lightning.pytorch import Trainer

    asked, predict = [], Trainer.predict
    monkeypatch.setattr(Trainer, "predict", lambda *a, **k: asked.append(k["ckpt_path"]) or predict(*a, **k))
    best = {"class_path": "lightning.pytorch.callbacks.ModelCheckpoint", "init_args": {"monitor": "val/loss"}}
    (tmp_path / "best.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [best]}}))
    arguments = [*layers(), "--folds", "2", "--trainer.max_epochs", "2"]
    assert main([*arguments, "-c", "best.yaml"]) == 0
    assert [path.endswith(".ckpt") and f"folds/{k}/checkpoints" in path for k, path in enumerate(asked)] == [True] * 2
    asked.clear()
    assert main([*arguments, "--output", "last"]) == 0
    assert asked == [None, None]


@pytest.mark.parametrize(
    ("init_args", "options", "sentence"),
    [
        ({}, ["--trainer.epochs", "2"], "nrecognized arguments: --trainer.epochs 2"),
        ({}, ["--folds", "1"], "--folds is 1; cross-validation needs at least 2."),
        ({"num_train": 8}, [], "holds every training sample of class"),
        ({"broken": 3}, [], "the disk is gone; mount it."),
        ({}, ["--trainer.fast_dev_run", "1"], "delete it and predict whole folds"),
    ],
)
def test_what_is_wrong_is_told_in_one_sentence(layers, capsys, init_args, options, sentence):
    assert main([*layers(**init_args), *options]) == 2
    assert sentence in said(capsys)


@pytest.fixture
def foreign(colours, tmp_path, monkeypatch):
    """Return a function that writes a configuration of foreign data and a foreign module."""
    monkeypatch.chdir(tmp_path)

    def write(module="Tested", indexed=False, **init_args) -> list[str]:
        data = {"class_path": "colours_for_tests.Tuples", "init_args": init_args}
        data = {"class_path": "medbolt.core.Indexed", "init_args": {"data": data}} if indexed else data
        trainer = {"max_epochs": 20, "accelerator": "cpu", "enable_model_summary": False}
        config = {"data": data, "model": f"colours_for_tests.{module}", "trainer": trainer}
        (tmp_path / "foreign.yaml").write_text(yaml.safe_dump(config))
        return ["issues", "-c", "foreign.yaml", "--network", "net", *OPTIONS]

    return write


@pytest.mark.parametrize("options", [{}, {"keys": True, "targets": False}, {"indexed": True}])
def test_finds_the_wrong_labels_of_foreign_data(colours, foreign, tmp_path, options):
    assert main(foreign(**options)) == 0
    rows = {int(row["id"]): row for row in table(tmp_path / "issues/issues.csv")}
    assert sorted(rows) == list(range(120))
    right = colours.Colours().dataset("train").targets.tolist()
    given = [(label + (i % 5 == 0)) % 3 for i, label in enumerate(right)]
    assert [rows[i]["given"] for i in range(120)] == [str(label) for label in given]
    flagged = {i for i, row in rows.items() if row["is_issue"] == "1"}
    wrong = set(range(0, 120, 5))
    assert len(flagged & wrong) > 0.9 * 24
    assert len(flagged - wrong) < 10
    assert all(rows[i]["suggested"] == str(right[i]) for i in flagged & wrong)
    page = (tmp_path / "issues/report.html").read_text(encoding="utf-8")
    assert page.count('src="data:image/jpeg;base64,') == len(flagged)
    assert "Tuples · 120 training samples · 3 folds" in page
    folds = [read_predictions(tmp_path / f"issues/folds/{k}.parquet") for k in range(3)]
    assert [len(fold) for fold in folds] == [40, 40, 40]
    if options.get("targets", True):
        share = np.bincount(given) / 3
        assert all(np.abs(np.bincount(fold.target) - share).max() < 1 for fold in folds), "stratified"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"module": "Untested"}, "Untested has no test_step, by which the samples held out of training are predicted"),
        ({"size": 2}, "the 2 samples of Tuples cannot be divided into 3 folds; use fewer folds."),
        (
            {"weighted": True},
            "the training samples of Tuples cannot be divided into folds, as its loader draws them by",
        ),
    ],
)
def test_foreign_data_that_cannot_be_divided(foreign, capsys, options, sentence):
    assert main(foreign(**options)) == 2
    assert said(capsys).startswith(sentence)


def test_help_comes_at_once():
    code = (
        "import sys; from medbolt.core.cli.main import main\n"
        "try: main(['issues', '--help'])\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'lightning', 'pandas', 'jsonargparse'} & set(sys.modules); assert not heavy, heavy"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert "--output" in shown
    assert "--folds" in shown

import pickle
import re
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
import torch
import yaml

from medbolt.core import UserError
from medbolt.core.cli.main import main

_SAVE_WEIGHTS = {
    "class_path": "lightning.pytorch.callbacks.ModelCheckpoint",
    "init_args": {"save_weights_only": True},
}


def said(capsys) -> str:
    """Return the one line on standard error that is medbolt's."""
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("medbolt: error: ")]
    assert len(lines) == 1
    return lines[0].removeprefix("medbolt: error: ")


def test_help_names_every_subcommand(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    assert all(f"  {name}" in text for name in ("fit", "validate", "test", "predict", "data", "list"))


def test_help_imports_nothing_heavy():
    code = (
        "import sys; from medbolt.core.cli.main import main; main([]);"
        "heavy = {'torch', 'lightning', 'pandas', 'timm', 'jsonargparse'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_version(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--version"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("medbolt-core 0.")


def test_an_unknown_subcommand_is_answered_with_the_nearest(capsys):
    assert main(["fot"]) == 2
    assert said(capsys) == "there is no subcommand 'fot' (did you mean 'fit'?); medbolt --help lists them."


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            {"data": {"init_args": {"batchsize": 3}}},
            "unknown configuration key 'batchsize' of .*OwnData .*'batch_size'",
        ),
        (
            {"trainer": {"max_epoch": 3}},
            r"unknown configuration key 'trainer.max_epoch' \(did you mean 'trainer.max_epochs",
        ),
        (
            {"model": {"class_path": "medbolt.core.ClasificationTask"}},
            r"medbolt.core has no class .*'ClassificationTask'\?",
        ),
        ({"model": {"class_path": "nowhere.Task"}}, "no module 'nowhere' is installed"),
        ({"data": {"init_args": {"batch_size": "many"}}}, "'batch_size' must be int, got 'many'"),
        ({"data": {"init_args": {"classes": 20}}}, "classes 'class 16', 'class 17'.* without training samples"),
        ({"data": {"init_args": {"broken": True}}}, r"^image \d+.png cannot be read; replace it.$"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(changes, sentence, config, capsys):
    assert main(["fit", "-c", config(**changes)]) == 2
    message = said(capsys)
    assert re.search(sentence, message), message


def test_an_error_in_a_loading_process_is_the_same_sentence(config, capsys):
    path = config(data={"init_args": {"broken": True, "num_workers": 1}})
    assert main(["fit", "-c", path]) == 2
    assert said(capsys).endswith(".png cannot be read; replace it.")


def test_without_a_logger_the_user_s_own_config_yaml_stays(config, tmp_path):
    path = config(trainer={"logger": False, "enable_checkpointing": False})
    before = (tmp_path / "config.yaml").read_text()
    assert main(["fit", "-c", path]) == 0
    assert (tmp_path / "config.yaml").read_text() == before


def test_a_network_needs_no_argument_but_the_number_of_classes(config, tmp_path):
    code = "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, num_classes: int):\n"
    (tmp_path / "one_argument.py").write_text(
        f"{code}        super().__init__(nn.Flatten(), nn.Linear(192, num_classes))\n"
    )
    assert main(["fit", "-c", config(model={"init_args": {"model": {"class_path": "one_argument.Net"}}})]) == 0
    assert "one_argument.Net" in next(tmp_path.rglob("hparams.yaml")).read_text()


def test_an_option_that_a_subcommand_does_not_know_is_refused(capsys):
    with pytest.raises(SystemExit, match="2"):
        main(["list", "--nonsense"])
    assert "unrecognized arguments: --nonsense" in capsys.readouterr().err


def test_missing_files_are_named(config, capsys):
    path = config()
    assert main(["fit", "-c", "nowhere.yaml"]) == 2
    assert "nowhere.yaml" in said(capsys)
    assert main(["test", "-c", path, "--ckpt_path", "nowhere.ckpt"]) == 2
    assert "nowhere.ckpt" in said(capsys)


def saved(content) -> bytes:
    file = BytesIO()
    torch.save(content, file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (saved({"state_dict": {"weight": torch.zeros(1000)}})[:2000], "is damaged or no checkpoint; copy it anew"),
        (b"", "is damaged or no checkpoint; copy it anew or name one that medbolt fit has written."),
        (b"hello", "is damaged or no checkpoint; copy it anew"),
        (saved({"weight": torch.zeros(1)}), "has no 'state_dict', 'pytorch-lightning_version', so it is not of a"),
        (saved({"state_dict": {}}), "has no 'pytorch-lightning_version', so it is not of a training run; name one"),
        (saved(torch.zeros(1)), "has no 'state_dict', 'pytorch-lightning_version', so it is not of a"),
    ],
    ids=["truncated", "empty", "text", "weights", "no version", "tensor"],
)
def test_a_file_that_is_no_checkpoint_is_refused_by_name(config, capsys, tmp_path, content, sentence):
    (tmp_path / "some.ckpt").write_bytes(content)
    assert main(["test", "-c", config(), "--ckpt_path", "some.ckpt"]) == 2
    assert said(capsys).startswith(f"checkpoint 'some.ckpt' {sentence}")


def test_a_checkpoint_of_another_network_is_refused_by_name(config, capsys, tmp_path):
    path = config()
    assert main(["fit", "-c", path, "--trainer.limit_train_batches", "1"]) == 0
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    capsys.readouterr()
    for command in ("test", "fit"):
        wider = ["--model.model.init_args.width", "6", "--ckpt_path", str(checkpoint)]
        assert main([command, "-c", path, *wider]) == 2
        sentence = (
            f"checkpoint '{checkpoint}' does not fit the configured network (size mismatch for model.layers.1.weight"
        )
        told = said(capsys)
        assert told.startswith(sentence)
        assert told.endswith("use the configuration that it was trained with, or another checkpoint.")
    assert main(["fit", "-c", path, "--trainer.max_epochs", "2", "--ckpt_path", "last"]) == 0


def test_a_checkpoint_of_another_method_is_refused_by_name(config, capsys, tmp_path):
    path = config()
    own = yaml.safe_load(Path(path).read_text())["data"]["class_path"].replace("OwnData", "OwnMethod")
    (tmp_path / "method.yaml").write_text(yaml.safe_dump({"trainer": {"callbacks+": [{"class_path": own}]}}))
    assert main(["fit", "-c", path, "-c", "method.yaml"]) == 0
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    capsys.readouterr()
    assert main(["fit", "-c", path, "--trainer.max_epochs", "2", "--ckpt_path", str(checkpoint)]) == 2
    assert said(capsys).startswith(f"checkpoint '{checkpoint}' was made by an optimizer of other parameters (loaded")


def test_a_checkpoint_of_weights_only_is_tested_and_not_resumed(config, capsys, tmp_path):
    path = config(trainer={"callbacks": [_SAVE_WEIGHTS]})
    assert main(["fit", "-c", path]) == 0
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    assert main(["test", "-c", path, "--ckpt_path", str(checkpoint)]) == 0
    capsys.readouterr()
    assert main(["fit", "-c", path, "--trainer.max_epochs", "2", "--ckpt_path", str(checkpoint)]) == 2
    assert said(capsys).startswith(f"checkpoint '{checkpoint}' holds the weights only (save_weights_only), so training")


@pytest.mark.parametrize(
    "arguments", [["--ckpt_path", "evil.ckpt"], ["--ckpt_path=evil.ckpt"], ["-c", "layer.yaml"]], ids=" ".join
)
def test_a_checkpoint_with_pickled_objects_is_refused_by_name(config, capsys, tmp_path, arguments):
    (tmp_path / "evil.ckpt").write_bytes(pickle.dumps({"state_dict": {}, "path": tmp_path}))
    (tmp_path / "layer.yaml").write_text("ckpt_path: evil.ckpt")
    assert main(["test", "-c", config(), *arguments]) == 2
    assert said(capsys).startswith("checkpoint 'evil.ckpt' is damaged or holds pickled Python objects")


def test_an_output_folder_that_is_not_writable_is_named(config, capsys, tmp_path):
    (tmp_path / "runs").write_text("a file where the folder should be")
    assert main(["fit", "-c", config()]) == 2
    assert "runs" in said(capsys)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (FileNotFoundError(2, "No such file or directory", "a.csv"), "No such file or directory: 'a.csv'; correct it."),
        (
            PermissionError(13, "Permission denied", "a"),
            "Permission denied: 'a'; choose another or make it accessible.",
        ),
        (FileNotFoundError("no checkpoint a."), "no checkpoint a; correct the path."),
        (UserError("two\n  lines"), "two lines"),
    ],
)
def test_an_error_is_told_in_one_line_with_a_remedy(error, sentence, monkeypatch, capsys):
    def fail(given):
        raise error

    monkeypatch.setattr("medbolt.core.cli.main._dispatch", fail)
    assert main([]) == 2
    assert capsys.readouterr().err == f"medbolt: error: {sentence}\n"


def test_bugs_and_the_wish_for_a_traceback_are_not_hidden(monkeypatch):
    def fail(given):
        raise ZeroDivisionError

    monkeypatch.setattr("medbolt.core.cli.main._dispatch", fail)
    with pytest.raises(ZeroDivisionError):
        main([])
    monkeypatch.undo()
    monkeypatch.setenv("MEDBOLT_TRACEBACK", "1")
    with pytest.raises(UserError):
        main(["fot"])


def test_a_reader_that_stops_reading_is_no_error():
    reader = subprocess.Popen([sys.executable, "-c", "pass"], stdin=subprocess.PIPE)
    reader.wait()
    found = subprocess.run(
        [sys.executable, "-m", "medbolt.core.cli.main", "list"], stdout=reader.stdin, stderr=subprocess.PIPE, text=True
    )
    assert (found.returncode, found.stderr) == (0, "")


@pytest.mark.parametrize("form", ["--config {}", "-c {}", "--config={}"])
def test_of_several_layers_the_one_that_is_no_yaml_is_named(config, tmp_path, capsys, form):
    broken = tmp_path / "broken.yaml"
    broken.write_text("trainer:\n  max_epochs: [1\n")
    assert main(["fit", "--config", str(config()), *form.format(broken).split()]) == 2
    assert re.search(r"^\S*broken.yaml is no valid YAML \(line 3, column 1: .*\); correct it\.$", said(capsys))

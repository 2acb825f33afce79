import re

import pytest
import torch
import yaml
from lightning.pytorch.cli import LightningCLI

from medbolt.core import ClassificationTask, UserError
from medbolt.core.cli.lightning import run


def test_fit_then_test_from_a_configuration(config, tmp_path):
    path = config(data={"init_args": {"classes": 4}})
    cli = run(["fit", "-c", path])
    assert cli.model.num_classes == 4  # linked from the data, into the task and into the network
    assert cli.model.model.layers[-1].out_features == 4
    assert (tmp_path / "runs/version_0/metrics.csv").is_file()
    assert list((tmp_path / "runs/tensorboard/version_0").glob("events*"))
    checkpoint = next(tmp_path.rglob("*.ckpt"))
    task = ClassificationTask.load_from_checkpoint(checkpoint, weights_only=True)
    torch.testing.assert_close(task.state_dict(), cli.model.state_dict())
    tested = run(["test", "-c", path, "--ckpt_path", str(checkpoint)])
    assert 0 <= tested.trainer.callback_metrics["test/auroc"] <= 1


def test_the_network_of_a_binary_task_has_one_output(config):
    path = config(data={"init_args": {"classes": 2}})
    cli = run(["fit", "-c", path, "--model.task", "binary"])
    assert cli.model.num_classes == 2
    assert cli.model.model.layers[-1].out_features == 1


def test_data_that_do_not_say_their_classes_are_named(config):
    with pytest.raises(UserError, match="the data do not say how many classes there are; name the label column"):
        run(["predict", "-c", config(data={"init_args": {"classes": 0}})])


def test_the_configuration_beats_what_a_checkpoint_remembers(config, tmp_path):
    path = config()
    run(["fit", "-c", path])
    checkpoint = str(next(tmp_path.rglob("*.ckpt")))
    resumed = run(
        ["fit", "-c", path, "--model.task", "ordinal", "--trainer.max_epochs", "2", "--ckpt_path", checkpoint]
    )
    assert resumed.model.task == "ordinal"
    assert resumed.trainer.current_epoch == 2


@pytest.mark.parametrize("command", ["fit", "validate", "test", "predict"])
def test_a_checkpoint_is_text(command, capsys):
    # as Optional[str | Path], which typing's cache may make Optional[Path | str], "last" was a path now and then
    with pytest.raises(SystemExit):
        run([command, "--help"])
    told = " ".join(capsys.readouterr().out.split())
    assert re.search(r"--ckpt_path CKPT_PATH Path or address [^:]+ \(type: str \| (null|None), default: null\)", told)


def test_a_run_without_a_last_checkpoint_begins(config):
    with pytest.warns(match="there is no last checkpoint available"):
        run(["fit", "-c", config(), "--ckpt_path", "last"])


def test_layers_compose_and_callbacks_append(config, tmp_path):
    first = config()
    (tmp_path / "layer.yaml").write_text(
        yaml.safe_dump(
            {
                "data": {"init_args": {"batch_size": 4}},
                "trainer": {"callbacks+": [{"class_path": "medbolt.core.ObjectiveCallback"}]},
            }
        )
    )
    (tmp_path / "second.yaml").write_text(
        yaml.safe_dump(
            {"trainer": {"callbacks+": [{"class_path": "medbolt.core.RandomState", "init_args": {"seed": 3}}]}}
        )
    )
    cli = run(["fit", "-c", first, "-c", "layer.yaml", "-c", "second.yaml"])
    assert cli.datamodule.batch_size == 4
    names = [type(callback).__name__ for callback in cli.trainer.callbacks]
    assert names.index("ObjectiveCallback") < names.index("RandomState")


def test_the_saved_configuration_runs_again_and_gives_the_same(config, tmp_path):
    first = run(["fit", "-c", config()])
    again = run(["fit", "-c", str(tmp_path / "runs/version_0/config.yaml")])
    torch.testing.assert_close(again.model.state_dict(), first.model.state_dict(), rtol=0, atol=0)


def test_no_class_needs_our_command_line(config, tmp_path):
    path = config(model={"init_args": {"num_classes": 3, "model": None}})
    loaded = yaml.safe_load(open(path))  # noqa: SIM115, PTH123
    loaded["model"]["init_args"]["model"] = {
        "class_path": "medbolt.core.TimmClassifier",
        "init_args": {"name": "resnet10t", "num_classes": 3},
    }
    (tmp_path / "stock.yaml").write_text(yaml.safe_dump(loaded))
    LightningCLI(
        subclass_mode_model=True,
        subclass_mode_data=True,
        auto_configure_optimizers=False,
        args=["fit", "-c", "stock.yaml", "--trainer.fast_dev_run", "true"],
    )
    assert not (tmp_path / "runs").exists()

import sys
from subprocess import run

import numpy as np
import pytest
import yaml
from PIL import Image

from medbolt.core.cli.main import main
from medbolt.core.data.store import read_plan


@pytest.fixture
def labels(tmp_path, monkeypatch):
    """A manifest of eight pictures in the working folder, the last one a copy of the first in another split."""
    monkeypatch.chdir(tmp_path)
    for i in range(8):
        picture = np.random.default_rng(i % 7).integers(0, 256, (12, 16, 3), dtype=np.uint8)
        (tmp_path / f"{'ab'[i % 2]}").mkdir(exist_ok=True)
        Image.fromarray(picture).save(tmp_path / f"{'ab'[i % 2]}/{i}.png")
    rows = [f"{i},{'ab'[i % 2]},{'train' if i < 6 else 'test'}" for i in range(8)]
    path = tmp_path / "labels.csv"
    path.write_text("\n".join(["number,grade,split", *rows]))
    return path


PATTERN = "{grade}/{number}.png"


def test_check_tells_and_exits_with_one(labels, capsys, tmp_path):
    arguments = ["data", "check", "labels.csv", "--image", PATTERN, "--label", "grade", "--workers", "0"]
    assert main([*arguments, "--output", "out/check.html"]) == 1
    told = capsys.readouterr().out
    assert told.startswith("labels.csv: 8 images, 1 error,")
    assert "ERROR    1 pair of images in different splits with the same pixels." in told
    assert told.endswith("written: out/check.html\n")
    assert (tmp_path / "out/check.html").stat().st_size > 1000
    (tmp_path / "a/6.png").unlink()
    labels.write_text("\n".join(labels.read_text().splitlines()[:7]))
    assert main(arguments) == 0


def test_prepare_a_manifest(labels, capsys):
    arguments = ["data", "prepare", "labels.csv", "--image", PATTERN, "--id", "number", "--size", "8", "--workers", "2"]
    assert main([*arguments, "--output", "store"]) == 0
    assert capsys.readouterr().out.startswith("8 images of 8 pixels (0 MB) are in store; read them with")
    plan = read_plan(labels.parent / "store")
    assert sorted(plan.ids) == [str(i) for i in range(8)]
    assert plan.layers == {"image": [3, 8, 8]}


def test_prepare_a_class_folder_and_a_yaml_layer(labels, tmp_path):
    (tmp_path / "images").mkdir()
    for kind in "ab":
        (tmp_path / kind).rename(tmp_path / "images" / kind)
    common = ["--size", "8", "--workers", "0", "--crop-circle"]
    assert main(["data", "prepare", "images", "--output", "first", *common]) == 0
    layer = {"data": {"class_path": "medbolt.core.data.folder.FolderDataModule", "init_args": {"root": "images"}}}
    (tmp_path / "layer.yaml").write_text(yaml.safe_dump({"trainer": {"max_epochs": 1}, **layer}))
    assert main(["data", "prepare", "layer.yaml", "--output", "second", *common]) == 0
    assert read_plan(tmp_path / "first") == read_plan(tmp_path / "second")
    assert (tmp_path / "first/image.npy").read_bytes() == (tmp_path / "second/image.npy").read_bytes()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("data: [", "layer.yaml is no valid YAML"),
        ("trainer: {}", "layer.yaml has no data section; it must name a data module"),
        ("data: {class_path: medbolt.core.data.folder.FolderDataModule, init_args: {rot: x}}", "rot"),
        ("data: {class_path: medbolt.core.NoDataModule}", "NoDataModule"),
        (
            "data: {class_path: medbolt.core.Subset, init_args: {fraction: 2, "
            "data: medbolt.core.SyntheticFundusDataModule}}",
            "Subset: fraction must be in (0, 1], got 2.0.",
        ),
    ],
)
def test_bad_layers_are_answered_with_a_sentence(labels, tmp_path, capsys, content, message):
    (tmp_path / "layer.yaml").write_text(content)
    assert main(["data", "prepare", "layer.yaml", "--output", "store"]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["check", "no.csv"], "there is no no.csv in"),
        (["check", "labels.csv"], "labels.csv has no column 'image'; it has 'number', 'grade', 'split'."),
        (["check", "labels.csv", "--image", "{nmber}.png"], "no column 'nmber' (did you mean 'number'?)"),
        (
            ["prepare", "labels.csv", "--image", "{number}.png", "--output", "s"],
            "0.png (row 2 of labels.csv) and 7 more not",
        ),
        (["prepare", "labels.csv", "--image", PATTERN, "--output", "labels.csv/s"], "labels.csv/s cannot be written"),
        (["prepare", "labels.csv", "--image", PATTERN, "--output", "a"], "a holds other files; choose an empty folder"),
    ],
)
def test_mistakes_are_answered_with_a_sentence_and_exit_code_two(labels, capsys, arguments, message):
    assert main(["data", *arguments]) == 2
    told = capsys.readouterr().err
    assert message in told
    assert told.strip().splitlines()[-1].startswith("medbolt: error: ")


@pytest.mark.parametrize(
    ("option", "value", "lowest"),
    [("--size", "0", 1), ("--size", "-5", 1), ("--size", "big", 1), ("--workers", "-1", 0)],
)
def test_numbers_out_of_range_are_refused(labels, tmp_path, capsys, option, value, lowest):
    with pytest.raises(SystemExit, match="2"):
        main(["data", "prepare", "labels.csv", "--image", PATTERN, "--output", "store", option, value])
    sentence = f"error: argument {option}: '{value}' is no whole number from {lowest} on; correct it."
    assert capsys.readouterr().err.strip().endswith(sentence)
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("source", "remedy"), [("layer.yaml", "say it in the layer's data section"), ("a", "leave it")]
)
@pytest.mark.parametrize("option", ["--image", "--root", "--id", "--mask"])
def test_what_only_a_manifest_has_is_not_ignored_for_other_sources(labels, tmp_path, capsys, source, remedy, option):
    layer = {"data": {"class_path": "medbolt.core.FolderDataModule", "init_args": {"root": "."}}}
    (tmp_path / "layer.yaml").write_text(yaml.safe_dump(layer))
    assert main(["data", "prepare", source, option, "image", "--output", "store"]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"medbolt: error: '{option}' is for manifests, and {source} is none; {remedy}")
    assert not (tmp_path / "store").exists()


def test_a_corrupt_image_in_a_worker_is_one_sentence(labels, tmp_path, capsys):
    (tmp_path / "b/3.png").write_bytes(b"")
    arguments = ["--image", PATTERN, "--output", "store", "--workers", "2"]
    assert main(["data", "prepare", "labels.csv", *arguments]) == 2
    sentence = (
        "medbolt: error: b/3.png (row 5 of labels.csv) is truncated, corrupt or no image; replace it or remove it"
    )
    assert capsys.readouterr().err.strip().splitlines()[-1].startswith(sentence)


def test_the_module_is_light():
    code = (
        "import sys, medbolt.core.cli.data as m; print(sorted({'torch', 'numpy', 'pandas', 'PIL'} & set(sys.modules)))"
    )
    done = run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

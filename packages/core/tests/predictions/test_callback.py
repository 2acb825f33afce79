import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from medbolt.core.errors import UserError
from medbolt.core.predictions import PredictionTable, read_predictions

torch.manual_seed(0)
X, Y = torch.randn(7, 4), torch.tensor([0, 1, 2, 0, 1, 2, 0])
NETWORK = nn.Linear(4, 3)


class Foreign(LightningModule):
    """Somebody else's module: tuple batches, steps that return nothing."""

    def __init__(self):
        super().__init__()
        self.model = NETWORK

    def forward(self, x):
        return self.model(x)

    def test_step(self, batch, batch_idx):
        self.log("test_loss", nn.functional.cross_entropy(self.model(batch[0]), batch[1]))

    def predict_step(self, batch, batch_idx):
        return self(batch[0]).argmax(1)


class Ours(LightningModule):
    """A module that returns what medbolt's tasks return."""

    def test_step(self, batch, batch_idx, dataloader_idx=0):
        return {"probability": batch["image"].softmax(1), "target": batch["target"]}


def loader(*tensors, **options):
    return DataLoader(TensorDataset(*tensors), batch_size=3, **options)


def named(n: int, prefix: str = "img"):
    samples = [
        {
            "image": torch.randn(3),
            "target": i % 3,
            "index": i,
            "id": f"{prefix}{i}",
            "group": f"p{i // 2}",
            "domain": i % 2,
        }
        for i in range(n)
    ]
    return DataLoader(samples, batch_size=3, shuffle=True)


def trainer(folder: Path, table: PredictionTable, **options) -> Trainer:
    return Trainer(
        accelerator="cpu",
        callbacks=[table],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **options,
    )


def test_a_foreign_module_is_read_through_its_network(tmp_path):
    table = PredictionTable(method="baseline", dataset="toy")
    trainer(tmp_path, table).test(Foreign(), loader(X, Y), verbose=False)
    read = read_predictions(tmp_path / "predictions_test.parquet")
    np.testing.assert_allclose(read.probability, NETWORK(X).softmax(1).detach(), atol=1e-6)
    np.testing.assert_array_equal(read.target, Y)
    assert list(read.frame["id"]) == ["0", "1", "2", "3", "4", "5", "6"]
    assert set(read.frame["method"]) == {"baseline"}
    assert set(read.frame["dataset"]) == {"toy"}
    assert set(read.frame["split"]) == {"test"}
    assert read.class_names == ("0", "1", "2")
    assert read.run["module"] == "Foreign"
    assert table.written["test"].frame.equals(read.frame)
    assert not NETWORK._forward_hooks


def test_predicting_writes_a_table_of_its_own_without_targets(tmp_path):
    trainer(tmp_path, PredictionTable()).predict(Foreign(), loader(X))
    read = read_predictions(tmp_path / "predictions_predict.parquet")
    np.testing.assert_allclose(read.probability, NETWORK(X).softmax(1).detach(), atol=1e-6)
    assert read.frame["target"].isna().all()


def test_our_batches_name_their_samples_and_the_table_is_in_their_order(tmp_path):
    class Data(LightningDataModule):
        class_names = ("healthy", "mild", "severe")
        domain_names = ("old camera", "new camera")

        def test_dataloader(self):
            return named(7)

    trainer(tmp_path, PredictionTable(folder=tmp_path / "out", filename="t.parquet")).test(
        Ours(), datamodule=Data(), verbose=False
    )
    read = read_predictions(tmp_path / "out" / "t.parquet")
    assert list(read.frame["id"]) == [f"img{i}" for i in range(7)]
    assert list(read.frame["group"]) == ["p0", "p0", "p1", "p1", "p2", "p2", "p3"]
    assert list(read.frame["domain"]) == [0, 1, 0, 1, 0, 1, 0]
    assert read.class_names == Data.class_names
    assert read.domain_names == Data.domain_names


def test_several_loaders_are_told_apart(tmp_path):
    trainer(tmp_path, PredictionTable(dataset="d")).test(Ours(), {"a": named(4), "b": named(5)}, verbose=False)
    read = read_predictions(tmp_path / "predictions_test.parquet")
    assert list(read.frame["dataset"]) == ["d/a"] * 4 + ["d/b"] * 5


def test_names_that_do_not_fit_the_model_are_refused(tmp_path):
    class Data(LightningDataModule):
        class_names = ("healthy", "ill")

        def test_dataloader(self):
            return named(4)

    with pytest.raises(UserError, match="Data names 2 classes but the model gives 3 probabilities"):
        trainer(tmp_path, PredictionTable()).test(Ours(), datamodule=Data(), verbose=False)


def test_a_sample_without_a_name_of_its_own_is_refused(tmp_path):
    samples = [{"image": torch.randn(3), "target": 0, "id": "same"} for _ in range(4)]
    with pytest.raises(UserError, match="3 samples, 'same' the first, come more than once"):
        trainer(tmp_path, PredictionTable()).test(Ours(), DataLoader(samples, batch_size=2), verbose=False)


def test_a_folder_that_cannot_be_written_is_found_before_the_first_batch(tmp_path):
    class Never(Foreign):
        def test_step(self, batch, batch_idx):
            pytest.fail("the test ran although its table cannot be written")

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose a writable folder"):
        trainer(tmp_path, PredictionTable(folder=tmp_path / "file")).test(Never(), loader(X, Y), verbose=False)


def test_the_hook_is_taken_off_after_an_exception(tmp_path):
    class Broken(Foreign):
        def test_step(self, batch, batch_idx):
            super().test_step(batch, batch_idx)
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        trainer(tmp_path, PredictionTable()).test(Broken(), loader(X, Y), verbose=False)
    assert not NETWORK._forward_hooks


def test_the_seed_of_the_run_is_in_the_table(tmp_path, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "13")
    trainer(tmp_path, PredictionTable()).test(Foreign(), loader(X, Y), verbose=False)
    assert set(read_predictions(tmp_path / "predictions_test.parquet").frame["seed"]) == {13}


def test_a_fast_development_run_writes_its_one_batch(tmp_path):
    trainer(tmp_path, PredictionTable(), fast_dev_run=True).test(Foreign(), loader(X, Y), verbose=False)
    assert len(read_predictions(tmp_path / "predictions_test.parquet")) == 3


TWO_PROCESSES = """
import sys
from pathlib import Path

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from medbolt.core.errors import UserError
from medbolt.core.predictions import PredictionTable
from medbolt.core.report import Report


class Foreign(LightningModule):
    def __init__(self):
        super().__init__()
        self.model = nn.Identity()

    def test_step(self, batch, batch_idx):
        self.model(batch["image"] if isinstance(batch, dict) else batch[0])

    def predict_step(self, batch, batch_idx):
        return self.model(batch[0])


class OnlyOnTheFirst(IterableDataset):
    def __iter__(self):
        for i in range(3 if torch.distributed.get_rank() == 0 else 0):
            yield {"image": torch.zeros(3), "target": 0, "index": i, "id": f"img{i}"}


def trainer(kind=PredictionTable, **options):
    table = kind(**options)
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    return Trainer(accelerator="cpu", devices=2, strategy="ddp", callbacks=[table], default_root_dir=folder, **quiet)


if __name__ == "__main__":
    folder, samples = sys.argv[1], 7
    x = torch.arange(3.0 * samples).reshape(samples, 3) / samples
    loader = DataLoader(TensorDataset(x, torch.arange(samples) % 3), batch_size=2)
    trainer(Report, replicates=20).test(Foreign(), loader, verbose=False)
    trainer().predict(Foreign(), loader, return_predictions=False)
    trainer(filename="first.parquet").test(Foreign(), DataLoader(OnlyOnTheFirst()), verbose=False)
    try:
        trainer(folder=Path(folder, "file")).test(Foreign(), loader, verbose=False)
    except UserError:
        Path(folder, f"refused{torch.distributed.get_rank()}").touch()
"""


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_write_every_sample_once(tmp_path):
    samples = 7  # odd: the distributed sampler repeats one
    script = tmp_path / "script.py"
    script.write_text(TWO_PROCESSES)
    (tmp_path / "file").touch()
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    for split in ("test", "predict"):
        read = read_predictions(tmp_path / f"predictions_{split}.parquet")
        assert list(read.frame["id"]) == [str(i) for i in range(samples)]
        expected = (torch.arange(3.0 * samples).reshape(samples, 3) / samples).softmax(1)
        np.testing.assert_allclose(read.probability, expected, atol=1e-6)
        np.testing.assert_array_equal(read.target, np.arange(samples) % 3)
    assert "7 samples" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(read_predictions(tmp_path / "first.parquet")) == 3
    assert not list(tmp_path.glob(".*.parquet")), "shards stayed behind"
    assert {path.name for path in tmp_path.glob("refused*")} == {"refused0", "refused1"}

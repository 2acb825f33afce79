from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from medbolt.core import ImageDataModule, ImageDataset
from medbolt.core.errors import UserError
from medbolt.core.predictions import read_predictions
from medbolt.core.report import Report

LOADER = DataLoader(TensorDataset(torch.randn(8, 2), torch.tensor([0, 1] * 4)), batch_size=4)


class Foreign(LightningModule):
    """Logs the epoch, so that a curve can be checked."""

    def __init__(self):
        super().__init__()
        self.model = nn.Linear(2, 2)

    def training_step(self, batch, batch_idx):
        self.log("train/epoch", float(self.current_epoch), on_step=False, on_epoch=True)
        return nn.functional.cross_entropy(self.model(batch[0]), batch[1])

    def validation_step(self, batch, batch_idx):
        self.log("val/epoch", float(self.current_epoch))

    def test_step(self, batch, batch_idx):
        self.model(batch[0])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Data(ImageDataModule):
    class_names = ("healthy", "ill")  # pyright: ignore[reportAssignmentType]

    def load(self, split):
        generator = torch.Generator().manual_seed(0)
        images = [torch.randint(0, 256, (3, 8, 8), dtype=torch.uint8, generator=generator) for _ in range(30)]
        groups = [f"{split}{i // 2}" for i in range(30)]
        return ImageDataset(images, torch.arange(30) % 2, [f"{split}-{i}" for i in range(30)], groups)


class Ours(LightningModule):
    def test_step(self, batch, batch_idx):
        return {"probability": batch["image"].mean((2, 3))[:, :2].softmax(1), "target": batch["target"]}


def trainer(folder: Path, report: Report, epochs: int = 3, **options) -> Trainer:
    checkpoint = ModelCheckpoint(folder, "{epoch}", save_top_k=-1, **options.pop("checkpoint", {}))
    return Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[checkpoint, report],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def page(folder: Path) -> str:
    return (folder / "report.html").read_text(encoding="utf-8")


def test_after_fit_the_page_has_curves_and_after_test_numbers(tmp_path):
    report, module = Report(title="Foreign", replicates=20), Foreign()
    run = trainer(tmp_path, report)
    run.fit(module, LOADER, LOADER)
    assert "There are no labelled predictions yet" in page(tmp_path)
    assert "Training" in page(tmp_path)
    run.test(module, LOADER, verbose=False)
    assert "Balanced accuracy" in page(tmp_path)
    assert "Training" in page(tmp_path)
    assert len(read_predictions(tmp_path / "predictions_test.parquet")) == 8


def test_curves_hold_every_epoch_and_not_the_sanity_check(tmp_path):
    report = Report()
    trainer(tmp_path, report).fit(Foreign(), LOADER, LOADER)
    assert report.curves == {name: {0: 0.0, 1: 1.0, 2: 2.0} for name in ("train/epoch", "val/epoch")}


def test_a_value_that_was_not_logged_anew_is_not_repeated(tmp_path):
    report = Report()
    trainer(tmp_path, report, epochs=4, check_val_every_n_epoch=2).fit(Foreign(), LOADER, LOADER)
    assert report.curves["val/epoch"] == {1: 1.0, 3: 3.0}


@pytest.mark.parametrize("at_validation", [False, True])
def test_a_resumed_run_keeps_the_curve(tmp_path, at_validation):
    options = {"checkpoint": {"save_on_train_epoch_end": not at_validation}}
    trainer(tmp_path, Report(), epochs=2, **dict(options)).fit(Foreign(), LOADER, LOADER)
    report = Report()
    trainer(tmp_path, report, epochs=4, **dict(options)).fit(
        Foreign(), LOADER, LOADER, ckpt_path=tmp_path / "epoch=1.ckpt", weights_only=True
    )
    assert report.curves["val/epoch"] == {0: 0.0, 1: 1.0, 2: 2.0, 3: 3.0}
    lost = {1} if at_validation else set()  # Lightning ends the epoch of such a checkpoint without its training metrics
    assert report.curves["train/epoch"] == {epoch: float(epoch) for epoch in {0, 1, 2, 3} - lost}


def test_testing_a_checkpoint_shows_its_curves(tmp_path):
    trainer(tmp_path, Report()).fit(Foreign(), LOADER, LOADER)
    (tmp_path / "report.html").unlink()
    trainer(tmp_path, Report(replicates=20)).test(
        Foreign(), LOADER, ckpt_path=tmp_path / "epoch=2.ckpt", weights_only=True, verbose=False
    )
    assert "Training" in page(tmp_path)
    assert "epoch=2.ckpt" in page(tmp_path)


def test_a_test_of_nothing_does_not_show_the_table_of_the_one_before(tmp_path):
    class Nothing(IterableDataset):
        def __iter__(self):
            return iter([])

    report, module = Report(replicates=20), Foreign()
    run = trainer(tmp_path, report)
    run.test(module, LOADER, verbose=False)
    assert len(report.written["test"]) == 8
    run.test(module, DataLoader(Nothing()), verbose=False)
    assert "test" not in report.written
    assert "There are no labelled predictions yet" in page(tmp_path)


def test_our_data_modules_add_pictures_groups_and_counts(tmp_path):
    trainer(tmp_path, Report(replicates=20)).test(Ours(), datamodule=Data(image_size=None), verbose=False)
    text = page(tmp_path)
    assert "30 samples of 15 groups" in text
    assert text.count("data:image/jpeg;base64") == 12
    number = '<td class="number">{}</td>'
    assert '<td class="name">ill</td>' + 3 * number.format(15) in text
    assert "<td>groups</td>" + 3 * number.format(15) in text


def test_a_folder_that_cannot_be_written_is_found_before_training(tmp_path):
    class Never(Foreign):
        def training_step(self, batch, batch_idx):
            pytest.fail("training ran although its report cannot be written")

    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="choose a writable folder"):
        trainer(tmp_path, Report(folder=tmp_path / "file")).fit(Never(), LOADER, LOADER)


def test_another_run_begins_new_curves(tmp_path):
    report = Report()
    for epochs in (3, 2):
        trainer(tmp_path, report, epochs=epochs).fit(Foreign(), LOADER, LOADER)
    assert report.curves["val/epoch"] == {0: 0.0, 1: 1.0}

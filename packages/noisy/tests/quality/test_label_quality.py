import csv
import math
from itertools import pairwise

import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import TensorDataset

from medbolt.core import ClassificationTask, Indexed, ObjectiveCallback, UserError
from medbolt.noisy import LabelQuality, NoisyLabels, SymmetricNoise


class Spy(ObjectiveCallback):
    """Writes down what the criterion is given, and asks twice, as methods with a peer network do."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def objective(self, step):
        epoch = step.module.current_epoch
        self.seen += [(int(i), z.tolist(), epoch) for i, z in zip(step.index, step.logits, strict=True)]
        losses = step.loss()
        step.loss(logits=-step.logits)
        return losses


def table(path):
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def noisy(colours):
    return NoisyLabels(colours.Colours(240), SymmetricNoise(0.3))


def test_the_statistics_are_those_of_a_loop_over_visits(colours, noisy, trainer):
    quality, spy = LabelQuality(momentum=0.8), Spy()
    trainer(quality, spy, epochs=4).fit(colours.task(), datamodule=noisy)
    memory, labels = quality.memory, noisy.train_targets.tolist()
    for i, label in enumerate(labels):
        visits = [(logits, epoch) for index, logits, epoch in spy.seen if index == i]
        p = [torch.tensor(logits, dtype=torch.float64).softmax(0).tolist() for logits, _ in visits]
        margins = [z[label] - max(z[k] for k in range(3) if k != label) for z, _ in visits]
        right = [margin > 0 for margin in margins]
        average = p[0]
        for row in p[1:]:
            average = [0.8 * a + 0.2 * b for a, b in zip(average, row, strict=True)]
        assert memory["visits"][i] == len(visits) == 4
        assert memory["given"][i] == label
        assert memory["aum"][i] == pytest.approx(sum(margins) / 4, abs=1e-5)
        assert memory["loss"][i] == pytest.approx(-math.log(p[-1][label]), abs=1e-5)
        assert memory["mean_loss"][i] == pytest.approx(-sum(math.log(row[label]) for row in p) / 4, abs=1e-5)
        assert memory["probability"][i].tolist() == pytest.approx(average, abs=1e-5)
        assert memory["forgotten"][i] == sum(a and not b for a, b in pairwise(right))
        assert memory["learned"][i] == next((e for (_, e), r in zip(visits, right, strict=True) if r), -1)


def test_the_loss_is_passed_through(colours, noisy, trainer):
    plain, watched = colours.task(), colours.task()
    trainer(epochs=2).fit(plain, datamodule=noisy)
    trainer(LabelQuality(), epochs=2).fit(watched, datamodule=noisy)
    torch.testing.assert_close(watched.state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_wrong_labels_come_first(colours, noisy, trainer, tmp_path):
    quality = LabelQuality()
    run = trainer(quality, epochs=10)
    run.fit(colours.task(), datamodule=noisy)
    assert quality.written == tmp_path / "label_quality.csv"
    rows = table(quality.written)
    clean, given = noisy.clean_targets().tolist(), noisy.train_targets.tolist()
    assert [int(row["rank"]) for row in rows] == list(range(1, 241))
    assert [float(row["score"]) for row in rows] == sorted(float(row["aum"]) for row in rows)
    for row in rows:
        i = int(row["index"])
        assert row["id"] == f"train/{i:03}.png"
        assert row["given"] == noisy.class_names[given[i]]
        assert (row["learned"] == "") == (quality.memory["learned"][i] < 0)
    wrong = sum(a != b for a, b in zip(clean, given, strict=True))
    first = [int(row["index"]) for row in rows[:wrong]]
    assert sum(clean[i] != given[i] for i in first) > 0.9 * wrong
    suggested = [noisy.class_names.index(row["suggested"]) for row in rows[: wrong // 2]]
    assert suggested == [clean[i] for i in first[: wrong // 2]]
    metrics = run.callback_metrics
    assert all(metrics[f"lnl/auroc/{name}"] > 0.95 for name in ("aum", "probability", "mean_loss", "loss"))
    assert metrics["lnl/auroc/learned"] > 0.6
    assert 0 <= metrics["lnl/auroc/forgotten"] <= 1
    assert metrics["lnl/estimated_rate"] == pytest.approx(noisy.report().rate, abs=0.06)


@pytest.mark.parametrize("score", ["probability", "mean_loss"])
def test_ranks_by_the_score_asked_for(colours, noisy, trainer, score, tmp_path):
    quality = LabelQuality(score, folder=tmp_path / "new", filename="ranked.csv")
    trainer(quality).fit(colours.task(), datamodule=noisy)
    values = [float(row[score]) for row in table(tmp_path / "new/ranked.csv")]
    assert values == sorted(values, reverse=score == "mean_loss")


def test_without_clean_labels_no_auroc_is_logged(colours, trainer):
    run = trainer(LabelQuality())
    run.fit(colours.task(), datamodule=colours.Colours())
    assert [name for name in run.callback_metrics if name.startswith("lnl/")] == ["lnl/estimated_rate"]


@pytest.mark.parametrize("saved_at", ["epoch end", "validation end", "mid-epoch"])
def test_resumed_is_uninterrupted(colours, noisy, trainer, tmp_path, saved_at):
    saves = {"epoch end": {}, "validation end": {"save_on_train_epoch_end": False}}.get(
        saved_at, {"every_n_train_steps": 33}
    )

    def fit(folder, epochs, path=None):
        quality, task = LabelQuality(), colours.task()
        saving = ModelCheckpoint(tmp_path / folder, save_last=True, **saves)
        run = trainer(quality, saving, epochs=epochs, enable_checkpointing=True)
        run.fit(task, datamodule=noisy, ckpt_path=path, weights_only=True)
        return quality.memory.fields, task.state_dict(), (tmp_path / "label_quality.csv").read_bytes()

    whole = fit("whole", 4)
    fit("part", 2)
    resumed = fit("part", 4, tmp_path / "part/last.ckpt")
    torch.testing.assert_close(resumed[:2], whole[:2], rtol=0, atol=0)
    assert resumed[2] == whole[2]


def test_finite_under_bfloat16(colours, noisy, trainer):
    quality = LabelQuality()
    trainer(quality, precision="bf16-mixed", epochs=2).fit(colours.task(), datamodule=noisy)
    assert all(values.isfinite().all() for values in quality.memory.fields.values())
    assert quality.memory["probability"].dtype == torch.float32


class Foreign(LightningModule):
    """Tuples, other names, one logit or several."""

    def __init__(self, outputs: int, criterion: nn.Module):
        super().__init__()
        self.net = nn.Linear(4, outputs)
        self.loss_fn = criterion

    def training_step(self, batch, batch_idx):
        x, y = batch
        return self.loss_fn(self.net(x), y)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def foreign(targets):
    generator = torch.Generator().manual_seed(0)
    samples = TensorDataset(torch.rand(len(targets), 4, generator=generator), targets)
    return Indexed(LightningDataModule.from_datasets(samples, batch_size=4))


LABELS = torch.arange(21) % 2


@pytest.mark.parametrize(
    ("outputs", "criterion", "targets"),
    [
        (2, nn.CrossEntropyLoss(), LABELS),
        (1, nn.BCEWithLogitsLoss(), LABELS[:, None].float()),
        (2, nn.CrossEntropyLoss(), nn.functional.one_hot(LABELS, 2) * 0.8 + 0.1),  # soft
    ],
)
def test_any_module_and_kind_of_target(trainer, tmp_path, outputs, criterion, targets):
    quality = LabelQuality(num_classes=2, criterion="loss_fn", network="net")
    trainer(quality, epochs=2).fit(Foreign(outputs, criterion), datamodule=foreign(targets))
    assert quality.memory["visits"].tolist() == [2] * 21
    assert quality.memory["given"].tolist() == LABELS.tolist()
    torch.testing.assert_close(quality.memory["probability"].sum(1), torch.ones(21))
    rows = table(tmp_path / "label_quality.csv")
    assert sorted(int(row["id"]) for row in rows) == list(range(21))
    assert {row["given"] for row in rows} == {"0", "1"}


def test_samples_that_were_not_seen_are_left_out(trainer, tmp_path):
    quality = LabelQuality(num_classes=2, criterion="loss_fn", network="net")
    trainer(quality, limit_train_batches=2).fit(Foreign(2, nn.CrossEntropyLoss()), datamodule=foreign(LABELS))
    assert len(table(tmp_path / "label_quality.csv")) == 8 == int(quality.memory.seen.sum())


def test_several_labels_a_sample_are_refused(trainer):
    quality = LabelQuality(num_classes=2, criterion="loss_fn", network="net")
    with pytest.raises(UserError, match="where each sample has one class"):
        trainer(quality).fit(Foreign(2, nn.BCEWithLogitsLoss()), datamodule=foreign(torch.ones(8, 2)))


def test_an_unknown_number_of_classes_is_told(trainer):
    with pytest.raises(UserError, match="nor Foreign has num_classes"):
        trainer(LabelQuality(criterion="loss_fn")).fit(Foreign(2, nn.CrossEntropyLoss()), datamodule=foreign(LABELS))
    quality, task = LabelQuality(), ClassificationTask(nn.Linear(4, 2), 2)
    quality.setup(trainer(), task, "validate")
    assert quality.memory is None


def test_a_folder_that_cannot_be_written_is_found_before_training(colours, trainer, tmp_path):
    (tmp_path / "file").touch()
    task = colours.task()
    with pytest.raises(UserError, match="cannot write"):
        trainer(LabelQuality(folder=tmp_path / "file")).fit(task, datamodule=colours.Colours())
    assert task.global_step == 0


@pytest.mark.parametrize("options", [{"momentum": 1.0}, {"momentum": -0.1}, {"score": "margin"}])
def test_wrong_arguments(options):
    with pytest.raises(ValueError, match="must be"):
        LabelQuality(**options)

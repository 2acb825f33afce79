import json

import pytest
import torch
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from processes import run
from torch import nn
from toys import ToyImages, trainer, weights

from medbolt.core import ClassificationTask, RandomState, UserError
from medbolt.noisy import CleanTestCurve, NoisyLabels, SymmetricNoise
from medbolt.noisy.protocol.clean_test_curve import _classes


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def task() -> ClassificationTask:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 3))
    return ClassificationTask(network, 3, optimizer=lambda p: torch.optim.SGD(p, 0.1))


def fitted(*callbacks, epochs=3, path=None, **options):
    module = task()
    data = NoisyLabels(ToyImages(batch_size=8 // trainer().world_size), SymmetricNoise(0.4))
    run = trainer(RandomState(), *callbacks, epochs=epochs, **options)
    run.fit(module, datamodule=data, ckpt_path=path)
    return module, run


def test_the_last_point_is_what_a_test_of_the_clean_labels_gives(tmp_path):
    curve = CleanTestCurve()
    module, run = fitted(curve, default_root_dir=tmp_path)
    (expected,) = run.test(module, datamodule=run.datamodule, verbose=False)
    assert [point["epoch"] for point in curve.curve] == [0, 1, 2]
    for name in ("accuracy", "balanced_accuracy"):
        assert curve.curve[-1][name] == pytest.approx(expected[f"test/{name}"])
    written = json.loads((tmp_path / "test_curve.json").read_text())
    assert written == {"summary": curve.summary(), "curve": curve.curve}


def test_averaged_weights_are_tested_where_they_are_validated(tmp_path):
    curve = CleanTestCurve()
    module, run = fitted(curve, EMAWeightAveraging(decay=0.9), default_root_dir=tmp_path)
    (expected,) = run.test(module, datamodule=run.datamodule, verbose=False)  # of the average, which fit leaves behind
    assert curve.curve[-1]["accuracy"] == pytest.approx(expected["test/accuracy"])
    plain = CleanTestCurve()
    fitted(plain, default_root_dir=tmp_path)
    assert curve.curve != plain.curve
    with pytest.raises(UserError, match="EMAWeightAveraging stands before CleanTestCurve and puts the weights back"):
        fitted(EMAWeightAveraging(decay=0.9), CleanTestCurve())


def test_the_summary_is_mean_selected_and_best():
    curve = CleanTestCurve(last_epochs=2)
    scores = [0.3, 0.9, 0.6, 0.4]
    curve.curve = [
        {"epoch": e, "monitor": m, "accuracy": s}
        for e, (m, s) in enumerate(zip([0.1, 0.2, 0.5, 0.3], scores, strict=True))
    ]
    assert curve.summary() == pytest.approx({"accuracy/last": 0.5, "accuracy/selected": 0.6, "accuracy/best": 0.9})


def test_training_is_not_changed_by_it():
    plain, _ = fitted()
    watched, _ = fitted(CleanTestCurve())
    assert torch.equal(weights(plain), weights(watched))


def test_a_resumed_curve_is_whole(tmp_path):
    whole = CleanTestCurve()
    fitted(whole, epochs=4)
    fitted(CleanTestCurve(), ModelCheckpoint(tmp_path, save_last=True), epochs=2, enable_checkpointing=True)
    resumed = CleanTestCurve()
    fitted(resumed, epochs=4, path=tmp_path / "last.ckpt")
    assert resumed.curve == whole.curve


def curve_of_a_run(folder):
    curve = CleanTestCurve()
    fitted(curve, epochs=2, default_root_dir=folder)
    return curve.curve


@pytest.mark.ddp
def test_processes_agree(tmp_path):
    first, second = run(curve_of_a_run, tmp_path)
    assert first == second
    assert len(first) == 2


def test_an_absent_monitor_is_named():
    with pytest.raises(UserError, match="selects by 'val/kappa', which is not logged"):
        fitted(CleanTestCurve(monitor="val/kappa"))


def test_an_epoch_there_must_be():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        CleanTestCurve(last_epochs=0)


class TwoClasses(ToyImages):
    @property
    def class_names(self):
        return ["none", "some"]

    def load(self, split):
        dataset = super().load(split)
        return type(dataset)(dataset.images, dataset.targets % 2, dataset.ids)


def test_one_logit_tells_two_classes_apart():
    curve = CleanTestCurve()
    run = trainer(curve)
    torch.manual_seed(0)
    module = ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(192, 1)), 2, "binary")
    run.fit(module, datamodule=TwoClasses())
    (expected,) = run.test(module, datamodule=run.datamodule, verbose=False)
    assert curve.curve[0]["accuracy"] == pytest.approx(expected["test/accuracy"])
    assert curve.curve[0]["balanced_accuracy"] == pytest.approx(expected["test/balanced_accuracy"])
    assert 0 < curve.curve[0]["accuracy"] < 1


def test_logits_keep_or_lose_their_second_dimension():
    logits, target = torch.tensor([-1.0, 2.0, 0.5]), torch.tensor([0, 1, 1])
    assert _classes(logits, target, 2).tolist() == _classes(logits[:, None], target, 2).tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("logits", "targets", "classes"), [((4, 5), (4,), 3), ((4, 1), (4,), 3), ((4, 3), (4, 3), 3), ((4, 2, 2), (4,), 2)]
)
def test_other_shapes_are_refused(logits, targets, classes):
    with pytest.raises(UserError, match="one class a sample, but got logits of shape"):
        _classes(torch.zeros(logits), torch.zeros(targets, dtype=torch.int64), classes)


def test_a_new_fit_begins_a_new_curve_and_a_continued_one_goes_on():
    curve = CleanTestCurve()
    module, run = fitted(curve, epochs=2)
    first = list(curve.curve)
    run.fit_loop.max_epochs = 3
    run.fit(module, datamodule=run.datamodule)
    assert [point["epoch"] for point in curve.curve] == [0, 1, 2]
    assert curve.curve[:2] == first
    fitted(curve, epochs=1)
    assert [point["epoch"] for point in curve.curve] == [0]

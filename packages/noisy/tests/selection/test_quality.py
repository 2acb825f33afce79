import pytest
import torch
from lightning.pytorch import Callback
from toys import ToyClassifier, ToyImages, trainer

from medbolt.core import DataModuleWrapper, Subset
from medbolt.noisy import NoisyLabels, Selection, SelectionQuality, SymmetricNoise
from medbolt.noisy.selection.labels import training_labels


class Selects(Callback):
    """Keeps the samples, and corrects the labels, it is told to."""

    def __init__(self, kept, corrected=None):
        self.kept, self.corrected, self.selection = kept, corrected, None

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        index = batch["index"]
        target = None if self.corrected is None else self.corrected[index]
        self.selection = Selection(index, self.kept[index], target)


def noisy(size=60, rate=0.4):
    return NoisyLabels(ToyImages({"train": size}, batch_size=10), SymmetricNoise(rate))


def logged(data, *callbacks, epochs=1):
    run = trainer(*callbacks, epochs=epochs)
    run.fit(ToyClassifier(), datamodule=data)
    return {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("lnl")}


@pytest.mark.parametrize("epochs", [1, 3])
def test_shares_are_those_counted_by_hand(epochs):
    data = noisy()
    clean, given = data.clean_targets(), data.train_targets
    kept = torch.rand(60, generator=torch.Generator().manual_seed(0)) < 0.5
    found = logged(data, SelectionQuality(), Selects(kept), epochs=epochs)  # in any order of the callbacks
    right = clean == given
    assert 0.3 < right.float().mean() < 0.9
    expected = {"precision": (right & kept).sum() / kept.sum(), "recall": (right & kept).sum() / right.sum()}
    for c, name in enumerate(data.class_names):
        expected[f"precision_class_{name}"] = (right & kept & (given == c)).sum() / (kept & (given == c)).sum()
        expected[f"recall_class_{name}"] = (right & kept & (clean == c)).sum() / (right & (clean == c)).sum()
    assert found == pytest.approx({f"lnl/select/{name}": float(value) for name, value in expected.items()})


def test_corrected_labels_are_counted_apart():
    data = noisy()
    clean, given = data.clean_targets(), data.train_targets
    corrected = given.clone()
    wrong = (clean != given).nonzero().flatten()
    corrected[wrong[:5]] = clean[wrong[:5]]
    corrected[wrong[5]] = 3 - clean[wrong[5]] - given[wrong[5]]  # neither
    found = logged(data, Selects(torch.ones(60, dtype=torch.bool), corrected), SelectionQuality())
    assert found["lnl/correct/precision"] == pytest.approx(5 / 6)
    assert found["lnl/correct/coverage"] == pytest.approx(6 / len(wrong))
    assert found["lnl/select/precision"] == pytest.approx(float((clean == given).sum()) / 54)
    assert found["lnl/select/recall"] == 1


def test_an_empty_selection_has_no_precision():
    found = logged(noisy(), Selects(torch.zeros(60, dtype=torch.bool)), SelectionQuality())
    assert "lnl/select/precision" not in found
    assert found["lnl/select/recall"] == 0


@pytest.mark.parametrize("wrap", [lambda data: Subset(data, fraction=0.5), DataModuleWrapper, lambda data: data])
def test_labels_are_found_by_index_through_wrappers(wrap):
    data = noisy()
    labels = training_labels(wrap(data))
    rows = wrap(data).dataset("train").rows
    assert torch.equal(labels.given[rows], data.train_targets[rows])
    assert torch.equal(labels.clean, data.clean_targets())
    assert (labels.given >= 0).sum() == len(rows)


def test_noise_on_a_subset_knows_which_samples_it_holds():
    data = NoisyLabels(Subset(ToyImages({"train": 60}), fraction=0.5), SymmetricNoise(0.4))
    labels, rows = training_labels(data), data.dataset("train").rows
    assert torch.equal(labels.clean[rows], data.clean_targets())
    assert (labels.clean >= 0).sum() == len(rows) < 60


def test_warns_once_and_stays_off_without_clean_labels():
    with pytest.warns(UserWarning, match="SelectionQuality stays off") as told:
        assert logged(ToyImages({"train": 60}), Selects(torch.ones(60, dtype=torch.bool)), SelectionQuality()) == {}
    assert len([w for w in told if "SelectionQuality" in str(w.message)]) == 1


def test_methods_without_a_selection_are_passed_over():
    assert "lnl/select/precision" not in logged(noisy(), SelectionQuality())

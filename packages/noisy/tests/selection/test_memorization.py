import pytest
import torch
from torch import nn
from toys import ToyClassifier, ToyImages, trainer

from medbolt.noisy import CoTeaching, MemorizationCurves, NoisyLabels, SymmetricNoise


class Table(nn.Module):
    """Predicts for each image what it is told: the image is its index."""

    def __init__(self, predictions):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.predictions = predictions

    def forward(self, index):
        return self.scale * nn.functional.one_hot(self.predictions[index], 3).float()


class ByIndex(ToyClassifier):
    def training_step(self, batch, batch_idx):
        return self.criterion(self.model(batch["index"]), batch["target"])

    def validation_step(self, batch, batch_idx):
        pass


def noisy():
    return NoisyLabels(ToyImages({"train": 60}, batch_size=10), SymmetricNoise(0.4))


def logged(predictions, *callbacks, epochs=1):
    module = ByIndex(lr=0.0)
    module.model = Table(predictions)
    run = trainer(*callbacks, epochs=epochs)
    run.fit(module, datamodule=noisy())
    return {name: float(value) for name, value in run.callback_metrics.items() if name.startswith("lnl")}


def shares(correct, memorised, other, fitted):
    values = {"correct": correct, "memorised": memorised, "other": other, "fitted": fitted}
    return pytest.approx({f"lnl/mem/{name}": value for name, value in values.items()})


@pytest.mark.parametrize("epochs", [1, 2])
def test_shares_are_those_counted_by_hand(epochs):
    data = noisy()
    clean, given = data.clean_targets(), data.train_targets
    assert logged(given, MemorizationCurves(), epochs=epochs) == shares(0, 1, 0, 1)
    assert logged(clean, MemorizationCurves(), epochs=epochs) == shares(1, 0, 0, 1)
    assert logged((clean + 1) % 3, MemorizationCurves())["lnl/mem/fitted"] == 0
    wrong = clean != given
    third = torch.where(wrong, 3 - clean - given, clean)
    assert logged(third, MemorizationCurves()) == shares(0, 0, 1, 1)
    some = given.clone()
    first = wrong.nonzero()[0]
    some[first] = clean[first]
    part = 1 / float(wrong.sum())
    assert logged(some, MemorizationCurves()) == shares(part, 1 - part, 0, 1)


def test_a_peer_network_s_predictions_are_not_counted():
    data = noisy()
    method = CoTeaching(0.2, peer=Table(data.clean_targets()))
    assert logged(data.train_targets, MemorizationCurves(), method) == shares(0, 1, 0, 1)
    assert logged(data.train_targets, method, MemorizationCurves()) == shares(0, 1, 0, 1)


def test_passes_the_loss_through():
    def weights_after(*callbacks):
        module = ToyClassifier(dropout=0)
        trainer(*callbacks).fit(module, datamodule=noisy())
        return module.model[0].weight

    assert torch.equal(weights_after(MemorizationCurves()), weights_after())


def test_warns_and_stays_off_without_clean_labels():
    run = trainer(MemorizationCurves())
    with pytest.warns(UserWarning, match="MemorizationCurves stays off"):
        run.fit(ToyClassifier(), datamodule=ToyImages())
    assert "lnl/mem/correct" not in run.callback_metrics


def test_mislabelled_samples_are_one_of_three():
    run = trainer(MemorizationCurves(), epochs=2)
    run.fit(ToyClassifier(), datamodule=noisy())
    found = [float(run.callback_metrics[f"lnl/mem/{name}"]) for name in ("correct", "memorised", "other")]
    assert sum(found) == pytest.approx(1)
    assert min(found) > 0

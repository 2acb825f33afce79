import pytest
import torch

from medbolt.core import MixUp, ObjectiveCallback
from medbolt.core.objective.mixup import drawn_mix, drawn_weights


class Watcher(ObjectiveCallback):
    """Keeps the inputs and losses of the last batch."""

    def objective(self, step):
        self.losses, self.inputs, self.batch = step.loss().detach(), step.inputs[0], step.batch
        return step.loss()


def test_mixes_each_image_with_its_partner_by_one_weight(classifier, data, fitted, monkeypatch):
    monkeypatch.setattr("medbolt.core.objective.mixup.drawn_weights", lambda *args: torch.tensor([0.3]))
    monkeypatch.setattr(torch, "randperm", lambda size, **options: torch.arange(size).roll(1))
    watcher = Watcher()
    fitted(classifier, data(4), MixUp(), watcher, limit_val_batches=0)
    x, _ = watcher.batch
    torch.testing.assert_close(watcher.inputs, 0.3 * x + 0.7 * x.roll(1, 0))


def test_every_sample_is_somebodys_partner():
    mix = drawn_mix(1.0, 50, torch.device("cpu"))
    assert sorted(mix.partner.tolist()) == list(range(50))
    assert torch.equal(mix.image_weight, mix.target_weight)


def test_alpha_is_positive():
    with pytest.raises(ValueError, match="alpha must be positive"):
        MixUp(alpha=0)


@pytest.mark.parametrize(("first", "second"), [(1.0, 1.0), (0.2, 1.0), (0.8, 0.8)])
def test_mean_and_variance_are_those_of_the_distribution(first, second):
    torch.manual_seed(0)
    drawn, total = drawn_weights(first, second, 8000), first + second
    assert float(drawn.mean()) == pytest.approx(first / total, abs=0.02)
    assert float(drawn.var()) == pytest.approx(first * second / (total**2 * (total + 1)), rel=0.08)


def test_precision_is_float32_whatever_the_default():
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert drawn_weights(1.0, 1.0, 2).dtype == torch.float32
    finally:
        torch.set_default_dtype(torch.float32)

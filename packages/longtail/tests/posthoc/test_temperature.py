import pytest
import torch
import torch.nn.functional as F
from scipy.optimize import minimize

from medbolt.core import UserError
from medbolt.core.stats import calibration_error
from medbolt.longtail import Calibration, PosthocLogitAdjustment, TemperatureScaling, fit_temperature


@pytest.fixture
def overconfident():
    """Logits three times too large, classes of 60, 30 and 10 in a hundred."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 3, generator=generator, dtype=torch.float64) + torch.tensor([0.6, 0.3, 0.1]).log()
    target = torch.multinomial(logits.softmax(1), 1, generator=generator).flatten()
    return 3 * logits, target


def test_finds_the_temperature_that_was_put_in(overconfident):
    assert fit_temperature(*overconfident).temperature == pytest.approx(3.0, rel=0.06)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("balanced", [False, True])
def test_agrees_with_scipy(overconfident, bias, balanced):
    logits, target = overconfident
    weight = (1 / torch.bincount(target)[target] if balanced else torch.ones(4000)).double()

    def objective(values):
        shift = torch.tensor(values[1:]) if bias else 0.0
        losses = F.cross_entropy(logits * values[0] + shift, target, reduction="none")
        return float(weight @ losses / weight.sum())

    best = minimize(objective, [1.0] + [0.0] * (3 * bias), options={"gtol": 1e-9})
    found = fit_temperature(logits, target, bias, balanced)
    assert found.temperature == pytest.approx(1 / best.x[0], rel=1e-4)
    value = objective([1 / found.temperature, *(found.bias or [])])
    assert value <= best.fun + 1e-9
    if bias:
        assert sum(found.bias) == pytest.approx(0, abs=1e-9)
        assert found.bias == pytest.approx((best.x[1:] - best.x[1:].mean()).tolist(), abs=1e-4)


def test_lowers_nll_and_calibration_error_on_other_samples(overconfident):
    logits, target = overconfident
    found = fit_temperature(logits[:2000], target[:2000])
    before, after = logits[2000:], found(logits[2000:])
    assert F.cross_entropy(after, target[2000:]) < F.cross_entropy(before, target[2000:]) - 0.1
    errors = [calibration_error(target[2000:], z.softmax(1)) for z in (before, after)]
    assert errors[1] < errors[0] / 2
    assert torch.equal(before.argmax(1), after.argmax(1))


def test_biases_undo_a_shift(overconfident):
    logits, target = overconfident
    shifted = logits / 3 + torch.tensor([0.0, 2.0, -1.0])
    found = fit_temperature(shifted, target, bias=True)
    assert found.bias == pytest.approx([1 / 3, 1 / 3 - 2, 1 / 3 + 1], abs=0.15)
    assert found.temperature == pytest.approx(1.0, rel=0.1)
    assert F.cross_entropy(found(shifted), target) <= F.cross_entropy(logits / 3, target)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "target", [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [2, 2, 2, 2]], ids=["one class", "right", "wrong", "other"]
)
def test_degenerate_splits_stay_finite(bias, target):
    logits = torch.tensor([[5.0, 0, -1], [4, 0, 1], [0, 3, 1], [1, 6, 2]])
    found = fit_temperature(logits, torch.tensor(target), bias)
    assert 0.0099 <= found.temperature <= 100.1
    assert found(logits).isfinite().all()
    if bias:
        assert all(found.bias[c] == 0 for c in range(3) if c not in target)


def test_the_callback_calibrates_a_test_and_is_in_the_checkpoint(bright, noting, make_trainer, tmp_path):
    task, scaling = noting(), TemperatureScaling(bias=True)
    trainer = make_trainer(callbacks=[scaling], max_epochs=2)
    trainer.fit(task, bright())
    assert {"val/posthoc_temperature", "val/posthoc_nll"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    torch.load(tmp_path / "last.ckpt", weights_only=True)
    trainer.test(task, bright(), verbose=False)
    torch.testing.assert_close(torch.cat(task.seen["test"]), scaling.calibration(torch.cat(task.raw["test"])))
    other = TemperatureScaling(bias=True)
    run = make_trainer(callbacks=[other])
    run.test(noting(), bright().test_dataloader(), ckpt_path=tmp_path / "last.ckpt", verbose=False)
    assert other.calibration == scaling.calibration


def test_behind_logit_adjustment_it_calibrates_adjusted_logits(bright, noting, make_trainer):
    task, adjustment, scaling = noting(), PosthocLogitAdjustment(None), TemperatureScaling()
    trainer = make_trainer(callbacks=[adjustment, scaling], max_epochs=2)
    trainer.fit(task, bright())
    batches = list(bright().val_dataloader())
    with torch.no_grad():
        logits = torch.cat([task.model(batch["image"]) for batch in batches])
    expected = fit_temperature(adjustment.adjusted(logits), torch.cat([batch["target"] for batch in batches]))
    assert scaling.calibration.temperature == pytest.approx(expected.temperature, rel=1e-4)
    trainer.test(task, bright(), verbose=False)
    expected_logits = scaling.calibration(adjustment.adjusted(torch.cat(task.raw["test"])))
    torch.testing.assert_close(torch.cat(task.seen["test"]), expected_logits)


def test_a_calibration_of_other_classes_is_named():
    scaling = TemperatureScaling(bias=True)
    scaling.calibration = Calibration(1.0, [0.0, 0.0])
    with pytest.raises(UserError, match="was fitted to 2 classes, but 'model' gives 3"):
        scaling.adjusted(torch.zeros(1, 3))

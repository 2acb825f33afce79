from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from torch.utils.data import DataLoader
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import Indexed, RandomState, UserError
from medbolt.core.objective.step import Capture, TrainingStep
from medbolt.noisy import NoisyLabels, SymmetricNoise, VolMinNet, transition_error
from medbolt.noisy.transition.volminnet import TransitionLayer, log_volume

LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])


def layer() -> TransitionLayer:
    made = TransitionLayer(3, -2.0)
    with torch.no_grad():
        made.weight.normal_(generator=torch.Generator().manual_seed(1))
    return made


def method(volume_weight: float = 0.1) -> VolMinNet:
    callback = VolMinNet(volume_weight=volume_weight)
    callback._layer = layer()
    return callback


def step(logits: torch.Tensor = LOGITS, target: torch.Tensor = TARGET) -> TrainingStep:
    return TrainingStep(logits, target, None, ToyClassifier(), lambda step: pytest.fail("not used"), Capture("model"))


def test_rows_sum_to_one_and_begin_as_the_paper_says():
    matrix = TransitionLayer(8, -2.0)()
    torch.testing.assert_close(matrix.sum(1), torch.ones(8))
    flipped = 1 / (1 + torch.tensor(2.0).exp())
    torch.testing.assert_close(matrix.diagonal(), (1 / (1 + 7 * flipped)).expand(8))
    random = layer()()
    torch.testing.assert_close(random.sum(1), torch.ones(3))
    assert (random.argmax(1) == torch.arange(3)).all()


def test_equals_the_formula_sample_by_sample():
    callback = method()
    matrix = callback.transition.double()
    for value, z, y in zip(callback.objective(step()), LOGITS.double(), TARGET, strict=True):
        noisy = matrix.T @ z.softmax(0)
        assert noisy.sum().item() == pytest.approx(1)
        assert value.item() == pytest.approx((-noisy[y].log() + 0.1 * matrix.det().abs().log()).item(), abs=1e-4)


def test_without_noise_and_volume_it_is_cross_entropy():
    callback = method(volume_weight=0)
    with torch.no_grad():
        callback._layer.weight.fill_(-100)
    torch.testing.assert_close(callback.objective(step()), cross_entropy(LOGITS, TARGET, reduction="none"))


def test_the_volume_has_the_gradient_of_a_log_determinant():
    matrix = layer()().detach().requires_grad_()
    log_volume(matrix).backward()
    torch.testing.assert_close(matrix.grad, matrix.detach().inverse().T, atol=5e-3, rtol=5e-3)
    made = layer()
    log_volume(made()).backward()
    assert made.weight.grad.masked_select(~torch.eye(3, dtype=torch.bool)).ne(0).all()


def test_the_gradient_is_finite_where_the_volume_vanishes():
    made = TransitionLayer(4, 100.0)  # all entries alike
    log_volume(made()).backward()
    assert made.weight.grad.isfinite().all()


def test_soft_targets_are_the_mean_over_labels():
    callback, soft = method(), torch.tensor([[0.25, 0.75, 0.0]])
    hard = [callback.objective(step(LOGITS[:1], torch.tensor([label]))) for label in (0, 1)]
    torch.testing.assert_close(callback.objective(step(LOGITS[:1], soft)), 0.25 * hard[0] + 0.75 * hard[1])
    all_hard = callback.objective(step(target=one_hot(TARGET, 3).float()))
    torch.testing.assert_close(all_hard, callback.objective(step()))


@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_value_and_gradient_are_finite_for_any_batch(scale, dtype):
    callback = method()
    for size in (1, 6):
        logits = (scale * LOGITS[:size]).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = callback.objective(step(logits, torch.full((size,), 2)))
        losses.mean().backward()
        assert losses.dtype == torch.float32
        assert losses.isfinite().all()
        assert logits.grad.isfinite().all()
        assert callback._layer.weight.grad.isfinite().all()


def test_finds_the_flips_and_beats_cross_entropy(accuracy, cross_entropy_accuracy, flips):
    callback = VolMinNet(volume_weight=0.1, transition_lr=3.0)
    assert 1 - accuracy(callback) < 0.6 * (1 - cross_entropy_accuracy)  # two fifths fewer errors at least
    assert transition_error(callback.transition, flips) < 0.15


def one_step(decay: float, lr: float = 1.0) -> torch.Tensor:
    """Return the matrix's parameters after a step in which nothing else trains."""
    module, callback = ToyClassifier(dropout=0), VolMinNet(transition_lr=lr)
    module.model.requires_grad_(False)
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.1, weight_decay=decay)
    fit = trainer(callback, max_steps=1)
    fit.fit(module, datamodule=ToyImages())
    (optimizer,) = fit.optimizers
    assert len(optimizer.param_groups) == 1
    assert not optimizer._optimizer_step_pre_hooks
    return callback._layer.weight.detach()


def test_the_matrix_does_not_decay_and_has_its_own_learning_rate():
    plain = one_step(0.0)
    decayed = one_step(0.5)
    assert torch.equal(plain, decayed)
    assert plain.diagonal().eq(-2).all()
    faster = one_step(0.5, lr=3.0)
    torch.testing.assert_close(faster + 2, 3 * (plain + 2))


def test_logs_the_error_where_clean_labels_are_known():
    data = NoisyLabels(ToyImages({"train": 48}), SymmetricNoise(0.3))
    callback = VolMinNet()
    fit = trainer(callback, epochs=2)
    fit.fit(ToyClassifier(), datamodule=data)
    error = transition_error(callback.transition, data.report().transition)
    assert float(fit.callback_metrics["lnl/T_error"]) == pytest.approx(error, rel=1e-5)
    fit = trainer(VolMinNet())
    fit.fit(ToyClassifier(), datamodule=ToyImages())
    assert "lnl/T_error" not in fit.callback_metrics


class Foreign(ToyClassifier):
    """Tuple batches, another name for the criterion, which is negative log-likelihood."""

    def __init__(self) -> None:
        super().__init__()
        del self.criterion
        self.loss_fn = nn.NLLLoss()

    def training_step(self, batch, batch_idx):
        return self.loss_fn(self.model(batch["image"]).log_softmax(1), batch["target"])


def test_works_on_a_foreign_module():
    samples = DataLoader([{"image": torch.randn(3, 8, 8), "target": i % 3} for i in range(12)], batch_size=4)
    callback, module = VolMinNet(num_classes=3, criterion="loss_fn"), Foreign()
    trainer(callback).fit(module, samples)
    assert callback.transition.shape == (3, 3)
    assert not hasattr(module, "noise_transition")
    assert not [name for name in module.state_dict() if "transition" in name]


def test_says_what_it_needs():
    with pytest.raises(UserError, match="before fit"):
        _ = VolMinNet().transition
    with pytest.raises(UserError, match="give it num_classes"):
        trainer(VolMinNet()).fit(ToyClassifier(), DataLoader([0]))
    with pytest.raises(UserError, match=r"matrix of 5 classes and predictions of shape \(4, 3\)"):
        trainer(VolMinNet(num_classes=5)).fit(ToyClassifier(), datamodule=ToyImages())
    for wrong in ({"volume_weight": -1}, {"transition_lr": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            VolMinNet(**wrong)
    with pytest.raises(ValueError, match="at least 2"):
        TransitionLayer(1, -2.0)


def fit(folder: Path, path: Path | None = None) -> dict[str, Any]:
    callback, module = VolMinNet(transition_lr=5.0), ToyClassifier()
    module.configure_optimizers = lambda: _scheduled(module)
    saving = ModelCheckpoint(folder, "{step}", save_top_k=-1, every_n_train_steps=4)
    run = trainer(RandomState(3), callback, saving, epochs=3, enable_checkpointing=True)
    run.fit(module, datamodule=ToyImages(), ckpt_path=path, weights_only=True)
    return {"weights": weights(module), "transition": callback.transition}


def _scheduled(module: nn.Module) -> Any:
    optimizer = torch.optim.SGD(module.parameters(), 0.1, momentum=0.9, weight_decay=0.01)
    return [optimizer], [torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)]


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = fit(tmp_path / "whole")
    saved = sorted((tmp_path / "whole").glob("*.ckpt"))
    assert len(saved) == 4
    for path in saved:  # after 4, 8, 12 and 16 of 18 steps, 12 being an epoch's end
        resumed = fit(tmp_path / path.stem, path)
        assert torch.equal(resumed["weights"], whole["weights"])
        assert torch.equal(resumed["transition"], whole["transition"])


def test_works_through_indexed_data():
    fit = trainer(VolMinNet(num_classes=3))
    fit.fit(ToyClassifier(), datamodule=Indexed(ToyImages()))

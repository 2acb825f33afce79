from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import nn
from torch.nn.functional import cross_entropy, one_hot
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import Indexed, RandomState, UserError
from medbolt.core.objective.step import Capture, TrainingStep
from medbolt.noisy import ImportanceReweightedLoss, TRevision, estimate_transition, transition_error
from medbolt.noisy.transition.t_revision import RevisedTransition

MATRIX = torch.tensor([[0.8, 0.2, 0.0], [0.1, 0.7, 0.2], [0.3, 0.1, 0.6]])
LOGITS, TARGET = torch.randn(6, 3, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 0, 1, 2])
FIRST, SECOND, LAST = 0, 1, 2
"""Epochs of the three stages."""


def method(delta: torch.Tensor | None = None) -> TRevision:
    callback = TRevision(estimate_epochs=1, revision_epoch=2)
    callback._layer = RevisedTransition(3)
    callback._layer.set_estimate(MATRIX)
    if delta is not None:
        callback._layer.delta.data.copy_(delta)
    return callback


def step(epoch: int, logits: torch.Tensor = LOGITS, target: torch.Tensor = TARGET) -> TrainingStep:
    module: Any = SimpleNamespace(current_epoch=epoch)

    def inward(step: TrainingStep) -> torch.Tensor:
        return cross_entropy(step.logits, step.target, reduction="none")

    return TrainingStep(logits, target, None, module, inward, Capture("model"))


def test_the_first_stage_is_the_modules_own_loss():
    torch.testing.assert_close(method().objective(step(FIRST)), cross_entropy(LOGITS, TARGET, reduction="none"))


def gradient(losses_of: Any) -> torch.Tensor:
    logits = LOGITS.clone().requires_grad_()
    losses_of(logits).sum().backward()
    return logits.grad


@pytest.mark.parametrize("soft", [False, True])
def test_the_second_stage_is_importance_reweighting(soft):
    target = torch.rand(6, 3, generator=torch.Generator().manual_seed(1)).softmax(1) if soft else TARGET
    oracle = ImportanceReweightedLoss(MATRIX, reduction="none")
    losses = method(delta=torch.eye(3)).objective(step(SECOND, target=target))  # no correction yet, whatever it is
    torch.testing.assert_close(losses, oracle(LOGITS, target), atol=1e-5, rtol=1e-4)
    found = gradient(lambda logits: method().objective(step(SECOND, logits, target)))
    torch.testing.assert_close(found, gradient(lambda logits: oracle(logits, target)), atol=1e-5, rtol=1e-4)


def revised_by_hand(logits: torch.Tensor, delta: torch.Tensor) -> torch.Tensor:
    """Evaluate the formula sample by sample, as one differentiable sum."""
    matrix = (MATRIX.double() + delta).clamp(min=1e-6)
    matrix = torch.stack([row / row.sum() for row in matrix])
    losses = []
    for z, y in zip(logits, TARGET, strict=True):
        p = z.softmax(0)
        noisy = sum(matrix[i, y] * p[i] for i in range(3))
        losses.append(-p[y] / noisy * p[y].log())
    return torch.stack(losses)


def test_the_last_stage_equals_the_formula_and_its_gradients():
    delta = 0.05 * torch.randn(3, 3, generator=torch.Generator().manual_seed(2))
    delta[0, 1] = -0.9  # below zero together with the estimate: projected
    callback, logits = method(delta), LOGITS.clone().requires_grad_()
    losses = callback.objective(step(LAST, logits))
    losses.sum().backward()
    by_hand, z = delta.double().requires_grad_(), LOGITS.double().requires_grad_()
    expected = revised_by_hand(z, by_hand)
    expected.sum().backward()
    torch.testing.assert_close(losses.double(), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(logits.grad.double(), z.grad, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(callback._layer.delta.grad.double(), by_hand.grad, atol=1e-4, rtol=1e-3)
    assert callback._layer.delta.grad.abs().sum() > 0
    torch.testing.assert_close(callback.transition.sum(1), torch.ones(3))
    assert callback.transition.min() > 0


def test_a_loss_does_not_depend_on_its_place_in_the_batch():
    callback = method(0.1 * torch.randn(3, 3, generator=torch.Generator().manual_seed(3)))
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    losses = callback.objective(step(LAST))
    torch.testing.assert_close(callback.objective(step(LAST, LOGITS[order], TARGET[order])), losses[order])
    torch.testing.assert_close(callback.objective(step(LAST, LOGITS[2:3], TARGET[2:3])), losses[2:3])


@pytest.mark.parametrize("epoch", [FIRST, SECOND, LAST])
def test_every_stage_gives_the_correction_a_gradient_for_the_sake_of_ddp(epoch):
    callback = method()
    callback.objective(step(epoch)).sum().backward()
    assert (callback._layer.delta.grad.abs().sum() > 0) == (epoch == LAST)


@pytest.mark.parametrize("epoch", [SECOND, LAST])
def test_one_hot_targets_equal_hard_ones(epoch):
    soft = method().objective(step(epoch, target=one_hot(TARGET, 3).float()))
    torch.testing.assert_close(soft, method().objective(step(epoch)))


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("epoch", [SECOND, LAST])
def test_value_and_gradient_are_finite_for_any_batch(epoch, dtype, scale, soft):
    for size in (1, 6):
        callback, target = method(), torch.full((size,), 2)
        logits = (scale * LOGITS[:size]).to(dtype).requires_grad_()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == torch.bfloat16):
            losses = callback.objective(step(epoch, logits, one_hot(target, 3).float() if soft else target))
        losses.mean().backward()
        assert losses.isfinite().all()
        assert logits.grad.isfinite().all()
        assert callback._layer.delta.grad.isfinite().all()


def test_estimates_from_the_network_in_evaluation_mode():
    class Snapshot(Callback):
        def on_train_epoch_end(self, trainer, pl_module):
            if trainer.current_epoch == 1:
                pl_module.eval()
                with torch.no_grad():
                    batches = trainer.datamodule.train_eval_dataloader()
                    self.p = torch.cat([pl_module.model(batch["image"]).softmax(1) for batch in batches])
                pl_module.train()

    callback, snapshot = TRevision(2, 3, top_m=2), Snapshot()
    trainer(callback, snapshot, epochs=4).fit(ToyClassifier(), datamodule=ToyImages())
    expected = estimate_transition(snapshot.p, top_m=2)
    assert callback.estimate.anchors == expected.anchors
    torch.testing.assert_close(callback._layer.estimate.double(), expected.transition, atol=1e-5, rtol=1e-4)


def test_beats_cross_entropy_and_revises_towards_the_truth(accuracy, cross_entropy_accuracy, flips):
    callback = TRevision(estimate_epochs=5, revision_epoch=30)
    assert 1 - accuracy(callback) < 0.6 * (1 - cross_entropy_accuracy)  # two fifths fewer errors at least
    estimated = transition_error(callback.estimate.transition, flips)
    assert transition_error(callback.transition, flips) < estimated - 0.05


class Watch(Callback):
    def __init__(self, method: TRevision) -> None:
        self.method, self.steps = method, []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.before = weights(pl_module), self.method._layer.delta.detach().clone()

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        after = weights(pl_module), self.method._layer.delta.detach()
        moved = [float((now - then).abs().max()) for now, then in zip(after, self.before, strict=True)]
        state = trainer.optimizers[0].state.get(self.method._layer.delta, {})
        self.steps.append((trainer.current_epoch, *moved, len(state) > 0))


def test_the_correction_trains_in_the_last_stage_only_at_the_learning_rate_of_the_stage():
    callback = TRevision(1, 2, revision_lr=0.01)
    watch, module = Watch(callback), ToyClassifier(dropout=0)
    module.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))  # no running statistics
    module.configure_optimizers = lambda: torch.optim.Adam(module.parameters(), 0.1, weight_decay=0.5)
    trainer(callback, watch, epochs=3).fit(module, datamodule=ToyImages())
    first = next(s for s in watch.steps if s[0] == 0)
    assert first[1] == pytest.approx(0.1, rel=1e-3)  # Adam's first step is the learning rate
    for epoch, moved, revised, has_state in watch.steps:
        assert (revised > 0) == has_state == (epoch == LAST)
        assert moved < (0.01 if epoch == LAST else 0.2)
    last = next(s for s in watch.steps if s[0] == LAST)
    assert last[2] == pytest.approx(0.001, rel=1e-3)


def fit(folder: Path, path: Path | None = None, stop: dict[str, Any] | None = None) -> dict[str, Any]:
    callback, module = TRevision(1, 2, revision_lr=0.5), ToyClassifier()
    saving = ModelCheckpoint(folder, "{step}", save_top_k=-1, **(stop or {"every_n_train_steps": 3}))
    torch.manual_seed(0 if path is None else 9)
    run = trainer(RandomState(3), callback, saving, epochs=4, enable_checkpointing=True)
    run.fit(module, datamodule=ToyImages(), ckpt_path=path, weights_only=True)
    return {"weights": weights(module), "matrices": weights(callback._layer)}


@pytest.mark.filterwarnings("ignore:TRevision found no sample:UserWarning")
@pytest.mark.parametrize(
    "stop", [{"every_n_train_steps": 3}, {"every_n_epochs": 1}, {"save_on_train_epoch_end": False}], ids=str
)
def test_a_resumed_run_is_the_uninterrupted_one_across_every_stage(tmp_path, stop):
    whole = fit(tmp_path / "whole", stop=stop)
    assert whole["matrices"].ne(0).all()
    saved = sorted((tmp_path / "whole").glob("*.ckpt"))  # of 24 steps, 6 an epoch
    assert len(saved) == (8 if "every_n_train_steps" in stop else 4)
    for path in saved:
        if "step=24" not in path.stem:
            torch.testing.assert_close(fit(tmp_path / path.stem, path, stop), whole, rtol=0, atol=0)


class Foreign(ToyClassifier):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss_fn = self.model, self.criterion
        del self.model, self.criterion

    def forward(self, image):
        return self.net(image)

    def training_step(self, batch, batch_idx):
        return self.loss_fn(self(batch["image"]), batch["target"])

    def validation_step(self, batch, batch_idx):
        pass


@pytest.mark.parametrize("network", ["net", "self"])
@pytest.mark.filterwarnings("ignore:TRevision found no sample:UserWarning")
def test_works_on_a_foreign_module(network):
    callback, module = TRevision(1, 2, num_classes=3, criterion="loss_fn", network=network), Foreign()
    trainer(callback, epochs=3).fit(module, datamodule=Indexed(ToyImages()))
    assert callback.transition.shape == (3, 3)
    assert not [name for name in module.state_dict() if "transition" in name]


def test_says_what_it_needs():
    with pytest.raises(UserError, match="before epoch 5 begins"):
        _ = TRevision().transition
    with pytest.raises(UserError, match="has no network 'model'"):
        trainer(TRevision(1, criterion="loss_fn"), epochs=2).fit(Foreign(), datamodule=ToyImages())
    with pytest.raises(UserError, match="matrix of 4 classes"):
        trainer(TRevision(num_classes=4)).fit(ToyClassifier(), datamodule=ToyImages())
    for wrong in ({"estimate_epochs": 0}, {"revision_epoch": 4}, {"revision_lr": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            TRevision(**wrong)


def test_the_correction_counts_once_where_weights_are_averaged():
    class NeverMoves(TRevision):
        """Keeps Δ, so that average and weights have the same one."""

        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            self._layer.delta.grad = None

        def setup(self, trainer, pl_module, stage):
            super().setup(trainer, pl_module, stage)
            if stage == "fit":
                self._layer.delta.data.fill_(0.5)

    callback = NeverMoves(1, 2, outlier_percentile=None)
    average = EMAWeightAveraging(decay=0.9)
    trainer(callback, average, epochs=3).fit(ToyClassifier(), datamodule=ToyImages())
    revised = callback.estimate.transition.clamp(min=1e-8).float() + 0.5
    assert not torch.allclose(callback._layer.estimate.sum(1), torch.ones(3))  # the average has zeros in it
    torch.testing.assert_close(callback.transition, revised / revised.sum(1, keepdim=True), rtol=1e-4, atol=1e-5)


def test_warns_of_classes_without_anchor():
    blind = ToyClassifier(lr=0.0)
    nn.init.zeros_(blind.model[-1].weight)
    blind.model[-1].bias.data = torch.tensor([0.0, 0.0, -20.0])
    with pytest.warns(UserWarning, match="no sample typical of the classes '2'"):
        trainer(TRevision(1, 1), epochs=2).fit(blind, datamodule=ToyImages())

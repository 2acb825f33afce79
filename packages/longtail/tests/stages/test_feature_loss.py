from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import nn
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState, UserError
from medbolt.longtail import CenterLoss, FeatureLoss, RangeLoss


class Linear(ToyClassifier):
    """A layer of features and a head; plain gradient descent."""

    def __init__(self, lr=0.1):
        super().__init__(lr)
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Flatten(), nn.Linear(192, 5), nn.Linear(5, 3))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), self.lr)


def centers():
    torch.manual_seed(1)
    return CenterLoss(3, 5, reduction="none")


def step_by_hand(module, loss, weight):
    """Return network and centers after one step: features feel the weight, centers do not."""
    module, loss = deepcopy(module), deepcopy(loss)
    batch = next(iter(ToyImages().train_dataloader()))
    features = module.model[:2](batch["image"])
    total = F.cross_entropy(module.model[2](features), batch["target"])
    total = total + weight * loss(features, batch["target"]).mean()
    total.backward()
    for p in module.model.parameters():
        p.data -= 0.1 * p.grad
    pulled = torch.zeros_like(loss.centers)
    for x, y in zip(features.detach(), batch["target"], strict=True):
        pulled[y] += (loss.centers.detach()[y] - x) / len(features)
    return module.model.state_dict(), loss.centers.detach() - 0.1 * pulled, float(total)


@pytest.mark.parametrize(("weight", "start"), [(0.3, 0), (1.0, 0), (0.0, 0), (0.3, 5)])
def test_features_feel_the_weight_and_centers_do_not(weight, start):
    class Loss(Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            self.value = float(outputs["loss"])

    module, loss, seen = Linear(), centers(), Loss()
    network, expected, total = step_by_hand(module, loss, weight if not start else 0.0)
    callback = FeatureLoss(loss, weight, start, features="model.1")
    trainer(callback, seen, limit_train_batches=1).fit(module, datamodule=ToyImages())
    torch.testing.assert_close(module.model.state_dict(), network, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss.centers.detach(), expected, rtol=1e-4, atol=1e-6)
    assert seen.value == pytest.approx(total, rel=1e-4)


def test_centers_are_not_in_the_module_s_weights_but_in_the_callback_s_and_resume(tmp_path):
    def fit(folder, path=None):
        module, loss = Linear(0.01), centers()
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=4, save_top_k=-1)
        callbacks = [RandomState(7), FeatureLoss(loss, 0.1, start=1, features="model.1"), saving]
        trainer(*callbacks, epochs=3, enable_checkpointing=True).fit(module, datamodule=ToyImages(), ckpt_path=path)
        return module, loss

    whole, loss = fit(tmp_path / "whole")
    assert not any("feature" in name for name in whole.state_dict())
    for step in (4, 12):
        resumed, again = fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")
        assert torch.equal(weights(resumed), weights(whole))
        assert torch.equal(again.centers, loss.centers)
    saved = torch.load(tmp_path / "whole/step=12.ckpt", weights_only=True)
    assert not any("center" in name for name in saved["state_dict"])


def test_features_of_a_class_draw_together():
    def spread(*callbacks):
        module = Linear(0.05)
        trainer(RandomState(), *callbacks, epochs=10, limit_val_batches=0).fit(module, datamodule=ToyImages())
        batches = list(ToyImages().train_eval_dataloader())
        features = module.model[:2](torch.cat([batch["image"] for batch in batches])).detach()
        target = torch.cat([batch["target"] for batch in batches])
        within = torch.stack([features[target == c].var(0).sum() for c in range(3)]).mean()
        return float(within / features.var(0).sum())

    assert spread(FeatureLoss(centers(), 0.3, features="model.1")) < 0.85 * spread()


def test_two_kinds_stack_each_with_its_own_state(tmp_path):
    module = Linear(0.01)
    first, second = FeatureLoss(centers(), 0.1, features="model.1"), FeatureLoss(RangeLoss(), 0.1, features="model.1")
    run = trainer(first, second, epochs=1)
    run.fit(module, datamodule=ToyImages())
    assert first.state_key != second.state_key
    assert torch.isfinite(weights(module)).all()


def test_maps_are_flattened_and_gradients_finite_under_bfloat16():
    module = ToyClassifier()
    loss = CenterLoss(3, 144, reduction="none")
    trainer(FeatureLoss(loss, 0.01, features="model.2"), precision="bf16-mixed").fit(module, datamodule=ToyImages())
    trainer(FeatureLoss(RangeLoss(), 0.01, features="model.2")).fit(module, datamodule=ToyImages(batch_size=2))
    assert all(p.isfinite().all() for p in (*module.parameters(), *loss.parameters()))


def test_what_cannot_be_added_is_named():
    class Wrong(nn.Module):
        def forward(self, features, target):
            return features

    with pytest.raises(UserError, match="ToyClassifier has no layer features='model.features'"):
        trainer(FeatureLoss(RangeLoss())).fit(ToyClassifier(), datamodule=ToyImages())
    with pytest.raises(UserError, match=r"Wrong returned shape \(4, 144\) for 4 samples"):
        trainer(FeatureLoss(Wrong(), features="model.2")).fit(ToyClassifier(), datamodule=ToyImages())
    with pytest.raises(ValueError, match="weight must not be negative"):
        FeatureLoss(RangeLoss(), -1)

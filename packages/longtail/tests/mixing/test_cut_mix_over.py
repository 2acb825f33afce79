import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import trainer, weights

from medbolt.core import RandomState
from medbolt.longtail import CutMixOver
from medbolt.longtail.mixing.cut_mix_over import box


class Kept(CutMixOver):
    """Keeps epoch, mix, box and partners of each batch."""

    def __init__(self, **options):
        super().__init__(**options)
        self.seen = []

    def objective(self, step):
        partners = self._partners.images.clone(), self._partners.targets.clone()
        self.seen.append((step.module.current_epoch, self.mix_of(step), self._box, *partners))
        return super().objective(step)


def test_images_and_losses_are_those_of_pasted_patches(tailed, watched):
    module, callback = watched(), Kept(probability=1.0, quiet_epochs=0)
    trainer(RandomState(3), callback, epochs=3).fit(module, datamodule=tailed())
    areas = set()
    for batch, given, loss, (_, mix, (rows, columns), images, targets) in zip(
        module.batches, module.inputs, module.losses, callback.seen, strict=True
    ):
        losses, pixels = [], 0
        for i, (x, y) in enumerate(zip(batch["image"], batch["target"], strict=True)):
            expected, pixels = x.clone(), 0
            for r in range(4):
                for c in range(4):
                    if rows.start <= r < rows.stop and columns.start <= c < columns.stop:
                        expected[:, r, c] = images[i, :, r, c]
                        pixels += 1
            assert torch.equal(given[i], expected)
            log_p = module.model(expected[None]).log_softmax(1)[0]
            losses.append(-(1 - pixels / 16) * log_p[y] - pixels / 16 * log_p[targets[i]])
        assert float(mix.target_weight[0]) == pytest.approx(1 - pixels / 16)
        assert loss == pytest.approx(float(torch.stack(losses).mean()), rel=1e-4)
        areas.add(pixels)
    assert len(areas) > 2


def test_the_batch_of_the_loader_is_not_pasted_upon(tailed, watched):
    module = watched()
    trainer(CutMixOver(probability=1.0, quiet_epochs=0)).fit(module, datamodule=tailed())
    assert all((batch["image"] == batch["image"][..., :1, :1]).all() for batch in module.batches)


def test_it_is_quiet_at_both_ends_and_now_and_then(tailed, watched):
    callback = Kept(probability=0.5, quiet_epochs=2)
    trainer(RandomState(0), callback, epochs=20, limit_val_batches=0).fit(watched(), datamodule=tailed())
    mixed = [epoch for epoch, mix, *_ in callback.seen if (mix.target_weight < 1).any()]
    assert min(mixed) == 2
    assert max(mixed) == 17
    boxes = sum(rows.stop > rows.start and columns.stop > columns.start for _, _, (rows, columns), *_ in callback.seen)
    assert len(mixed) == boxes
    assert 16 * 4 * 0.2 < len(mixed) < 16 * 4 * 0.65  # boxes that round to no pixel are not counted


def test_without_mixing_the_run_is_the_plain_one(tailed, watched):
    losses = []
    for callbacks in ([], [CutMixOver(probability=0.0, quiet_epochs=0)], [CutMixOver(quiet_epochs=1)]):
        module = watched(0.1)
        trainer(RandomState(0), *callbacks, epochs=2).fit(module, datamodule=tailed())
        losses.append(module.losses)
    assert losses[1] == losses[2] == pytest.approx(losses[0], rel=1e-6)


def test_a_run_that_is_too_short_to_mix_warns(tailed, watched):
    with pytest.warns(UserWarning, match="CutMixOver never mixes: all 6 epochs are quiet_epochs=3 at an end"):
        trainer(CutMixOver(), epochs=6, limit_train_batches=0).fit(watched(), datamodule=tailed())


def test_resumed_is_uninterrupted(tailed, watched, tmp_path):
    def fit(folder, path=None):
        module = watched(0.1)
        saving = ModelCheckpoint(folder, "{step}", every_n_train_steps=3, save_top_k=-1)
        callback = CutMixOver(probability=0.7, quiet_epochs=1)
        run = trainer(RandomState(1), callback, saving, epochs=4, enable_checkpointing=True)
        run.fit(module, datamodule=tailed(), ckpt_path=path)
        return module

    whole = fit(tmp_path / "whole")
    for step in (6, 12):  # of four batches an epoch: inside one that mixes, before a quiet one
        assert torch.equal(weights(fit(tmp_path / str(step), tmp_path / f"whole/step={step}.ckpt")), weights(whole))


@pytest.mark.parametrize("size", [(1, 1), (7, 4), (224, 224)])
def test_a_box_is_in_the_image_and_has_its_share_unless_clipped(size):
    height, width = size
    generator = torch.Generator().manual_seed(0)
    for share, y, x in torch.rand(300, 3, generator=generator).tolist():
        rows, columns = box(share, y, x, height, width)
        assert 0 <= rows.start <= rows.stop <= height
        assert 0 <= columns.start <= columns.stop <= width
        area = (rows.stop - rows.start) * (columns.stop - columns.start) / (height * width)
        assert area <= share + 1e-9
    if height == 224:
        rows, columns = box(0.25, 0.5, 0.5, height, width)
        assert (rows, columns) == (slice(56, 168), slice(56, 168))


def test_bfloat16_and_a_batch_of_one_are_finite(tailed, watched):
    for options, batch_size in (({"precision": "bf16-mixed"}, 8), ({"max_steps": 4}, 1)):
        module = watched(0.01)
        callback = CutMixOver(probability=1.0, quiet_epochs=0)
        trainer(callback, **options).fit(module, datamodule=tailed(batch_size))
        assert all(p.isfinite().all() for p in module.parameters())


@pytest.mark.parametrize("options", [{"alpha": 0}, {"probability": 1.5}, {"quiet_epochs": -1}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match="alpha must be positive, probability in"):
        CutMixOver(**options)

from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback
from toys import trainer

from medbolt.core import UserError
from medbolt.longtail import ClassBalancedSampler
from medbolt.longtail.mixing.partner_batches import PartnerBatches


class Fetches(Callback):
    """Fetches partners for every batch and keeps their grey values and targets, by epoch and place."""

    def __init__(self, places=None):
        self.found, self.places = {}, places

    def setup(self, trainer, pl_module, stage):
        self.partners = PartnerBatches("Fetches", ClassBalancedSampler, trainer)

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        for place in self.places or [batch_idx]:
            self.partners.fetch(trainer.current_epoch, place, pl_module)
            values = self.partners.images[:, 0, 0, 0].tolist(), self.partners.targets.tolist()
            self.found[trainer.current_epoch, place] = values


def fetched(data, module, places=None, **options):
    callback = Fetches(places)
    trainer(callback, **options).fit(module, datamodule=data)
    return callback.found


def test_classes_are_balanced_and_images_belong_to_targets(tailed, watched):
    data, module = tailed(), watched()
    found = fetched(data, module, epochs=10)
    targets = torch.tensor([target for _, targets in found.values() for target in targets])
    assert (torch.bincount(targets) / len(targets) - 1 / 3).abs().max() < 0.08
    grey = {}
    for values, labels in found.values():
        for value, label in zip(values, labels, strict=True):
            assert grey.setdefault(value, label) == label
    assert len(found) == 10 * 4
    assert data.trainer is not None


def test_a_place_holds_the_same_whatever_was_fetched_before(tailed, watched):
    found = fetched(tailed(), watched(), epochs=2)
    assert fetched(tailed(), watched(), epochs=2) == found
    again = fetched(tailed(), watched(), places=[2, 3, 1], epochs=2)
    assert all(again[key] == found[key] for key in again)
    assert found[0, 0] != found[1, 0]
    assert fetched(tailed(seed=1), watched()) != fetched(tailed(), watched())


def test_a_stream_that_is_too_short_begins_again_in_another_order(tailed, watched):
    found = fetched(tailed(), watched(), places=[0, 3, 4, 5, 9], limit_train_batches=1)
    assert len({tuple(values) for values, _ in found.values()}) == 5
    assert fetched(tailed(), watched(), places=[9], limit_train_batches=1)[0, 9] == found[0, 9]


def test_two_processes_fetch_together_what_one_does(tailed, watched):
    (one,) = fetched(tailed(8), watched(), places=[1], limit_train_batches=1).values()
    shares = []
    for rank in range(2):
        data = tailed(4)
        fake = SimpleNamespace(datamodule=data, world_size=2, global_rank=rank)
        fake.fit_loop, fake.state = SimpleNamespace(is_resuming=False), SimpleNamespace(fn="fit")
        partners = PartnerBatches("test", ClassBalancedSampler, fake)
        module = SimpleNamespace(
            _on_before_batch_transfer=lambda batch, _: batch,
            trainer=SimpleNamespace(strategy=SimpleNamespace(batch_to_device=lambda batch, dataloader_idx: batch)),
        )
        partners.fetch(0, 1, module)
        shares.append(partners.images[:, 0, 0, 0].tolist())
    assert [value for pair in zip(*shares, strict=True) for value in pair] == one[0]


def test_other_data_and_other_shapes_are_refused(tailed, watched):
    with pytest.raises(UserError, match="Fetches draws partners .* but the trainer has none; pass one"):
        trainer(Fetches()).fit(watched(), tailed().train_dataloader())
    callback = Fetches()
    trainer(callback, limit_train_batches=1).fit(watched(), datamodule=tailed())
    with pytest.raises(UserError, match=r"Fetches mixes images of shape \(3, 8, 8\).* partners of shape \(3, 4, 4\)"):
        callback.partners.images_like(torch.zeros(2, 3, 8, 8))
    assert callback.partners.images_like(torch.zeros(2, 3, 4, 4, dtype=torch.float64)).dtype == torch.float64

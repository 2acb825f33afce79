"""A resumed run is the uninterrupted one, for the network and for the peer, wherever it was saved."""

from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from toys import ToyClassifier, ToyImages, trainer, weights

from medbolt.core import RandomState
from medbolt.noisy import CoDis, CoTeaching, CoTeachingPlus, JoCoR, SmallLossSelection

METHODS: dict[Any, dict[str, Any]] = {
    SmallLossSelection: {},
    CoTeaching: {},
    CoTeachingPlus: {"warmup_epochs": 1},
    JoCoR: {},
    CoDis: {},
}


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize(
    "saves", [{}, {"save_on_train_epoch_end": False}, {"every_n_train_steps": 4}], ids=["epoch", "validation", "inside"]
)
def test_resumed_is_uninterrupted(saves, kind, tmp_path):
    def fit(epochs, *callbacks, path=None):
        module, method = ToyClassifier(), kind(0.4, gradual_epochs=2, **METHODS[kind])
        torch.manual_seed(99 if path else 0)  # a new process finds its generators elsewhere
        run = trainer(RandomState(7), method, *callbacks, epochs=epochs, enable_checkpointing=bool(callbacks))
        run.fit(module, datamodule=ToyImages(batch_size=8), ckpt_path=path)
        return [weights(network) for network in (module, method.peer) if network is not None]

    fit(2, ModelCheckpoint(tmp_path, save_last=True, **saves))
    saved = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert saved["global_step"] == (4 if "every_n_train_steps" in saves else 6)  # of three steps an epoch
    assert not [name for name in saved["state_dict"] if "peer" in name]
    whole = fit(4)
    assert len(whole) == (1 if kind is SmallLossSelection else 2)
    torch.testing.assert_close(fit(4, path=tmp_path / "last.ckpt"), whole, rtol=0, atol=0)

"""DivideMix and UNICON where each batch has one class only, as of data in the order of their labels."""

import pytest
import torch
from lightning.pytorch import Callback
from toys import trainer, weights

from medbolt.core.data.sampler import EpochSampler
from medbolt.noisy import UNICON, DivideMix


class Batches(Callback):
    """Keeps the classes and the loss of each batch."""

    def __init__(self):
        self.classes, self.losses = [], []

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        self.classes.append(batch["target"].unique().tolist())
        self.losses.append(outputs["loss"].detach())


@pytest.mark.parametrize("prior", ["uniform", "labels", None])
@pytest.mark.parametrize("kind", [DivideMix, UNICON])
@pytest.mark.parametrize("rate", [0.003, 1.0])  # by the second, networks get sure of a class of other batches
def test_losses_and_weights_stay_finite(rate, kind, prior, blobs, network):
    class Ordered(blobs):
        def train_sampler(self, dataset, tail):
            return EpochSampler(dataset, False, tail=tail)

    batches = Batches()
    task = kind(network(), 4, 1, rampup_epochs=1, prior=prior, optimizer=lambda p: torch.optim.Adam(p, rate))
    trainer(batches, epochs=4, limit_val_batches=0).fit(task, Ordered())
    assert batches.classes == [[0], [1], [2], [3]] * 4
    assert torch.stack(batches.losses).isfinite().all()
    assert weights(task).isfinite().all()

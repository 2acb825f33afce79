"""FlexRS on two processes: recalls are counted over both, and both draw their shares of one order."""

import pytest
import torch
from lightning.pytorch import Callback
from processes import run
from torch import nn
from toys import ToyImages, trainer

from medbolt.core import ClassificationTask
from medbolt.longtail import FlexRebalancingSampler, RecallFeedback, Resampled

pytestmark = pytest.mark.ddp


class Drawn(Callback):
    """Notes the recalls in use and the samples of each batch."""

    def __init__(self):
        self.recalls, self.batches = [], []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        self.recalls.append(trainer.train_dataloader.sampler.recall.tolist())
        self.batches.append(batch["index"].tolist())


def fitted():
    torch.manual_seed(0)
    task = ClassificationTask(
        nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), 3, optimizer=lambda p: torch.optim.SGD(p, 0.01)
    )
    drawn = Drawn()
    data = Resampled(ToyImages(batch_size=8 // trainer().world_size), FlexRebalancingSampler)
    trainer(RecallFeedback(), drawn, epochs=3).fit(task, datamodule=data)
    return drawn.recalls, drawn.batches


def test_two_processes_draw_together_what_one_does():
    (recalls, first), (others, second) = run(fitted)
    ((one_s, batches),) = run(fitted, processes=1)
    assert recalls == others == one_s
    assert recalls[0] != recalls[-1]
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(batch) for batch in batches]

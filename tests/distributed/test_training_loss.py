"""The logged training loss of an epoch is that of all processes."""

import pytest
import torch
from processes import run
from torch import nn
from toys import ToyImages, trainer

from medbolt.core import ClassificationTask

pytestmark = pytest.mark.ddp


def fitted():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    task = ClassificationTask(network, 3, optimizer=lambda parameters: torch.optim.SGD(parameters, 0.01))
    single = trainer(limit_val_batches=0)
    single.fit(task, datamodule=ToyImages(batch_size=8 // trainer().world_size))
    return float(single.callback_metrics["train/loss"])


def test_two_processes_log_what_one_does():
    first, second = run(fitted)
    (one,) = run(fitted, processes=1)
    assert first == second == pytest.approx(one, rel=1e-5)

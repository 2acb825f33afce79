"""Logits with known properties, and a module that notes what it is given."""

import pytest
import torch
from torch import nn


@pytest.fixture
def gaussians():
    """Exact log posteriors of two unit normals around -1 and 1 with 95 and 5 in a hundred samples."""

    def make(size, share=0.05, seed=0):
        generator = torch.Generator().manual_seed(seed)
        target = (torch.rand(size, generator=generator) < share).long()
        x = torch.randn(size, generator=generator, dtype=torch.float64) + 2 * target - 1
        prior = torch.tensor([0.95, 0.05], dtype=torch.float64)
        likelihood = torch.stack([-((x + 1) ** 2) / 2, -((x - 1) ** 2) / 2], 1)
        return likelihood + prior.log(), target

    return make


@pytest.fixture
def noting(make_task):
    """A ClassificationTask that keeps the logits its steps see, by stage, and those its network puts out."""

    def make(**options):
        task = make_task(**options)
        task.seen, task.raw = {}, {}
        forward = type(task).forward

        def noted(image):
            logits = forward(task, image)
            stage = task.trainer.state.fn.value + (" training" if task.training else "")
            task.seen.setdefault(stage, []).append(logits.detach())
            task.raw.setdefault(stage, []).append(nn.Sequential.forward(task.model, image).detach())
            return logits

        task.forward = noted
        return task

    return make

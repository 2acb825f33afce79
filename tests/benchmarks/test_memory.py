"""The memory of a million training samples: what a merge over two processes takes, what a checkpoint of it weighs."""

import io
import time

import torch
from lightning.fabric.plugins.environments import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from processes import run

from medbolt.core import SampleMemory

SIZE, CLASSES = 1_000_000, 10


def merge() -> tuple[float, int]:
    """Return the seconds of a merge after each process wrote every other sample, and the bytes of a checkpoint."""
    strategy = DDPStrategy(process_group_backend="gloo", cluster_environment=TorchElasticEnvironment())
    rank = TorchElasticEnvironment().global_rank()
    torch.distributed.init_process_group("gloo")
    memory = SampleMemory(SIZE, probability=torch.zeros(CLASSES))
    taken = []
    for _ in range(3):
        for chunk in torch.arange(rank, SIZE, 2).split(512):
            memory.write(chunk, probability=torch.rand(len(chunk), CLASSES))
        torch.distributed.barrier()
        start = time.perf_counter()
        memory.merge(strategy)
        taken.append(time.perf_counter() - start)
    torch.save(memory.state_dict(), file := io.BytesIO())
    return sorted(taken)[1], file.tell()


def test_a_million_samples(figures):
    (first, weight), (second, _) = run(merge)
    figures.add(f"memory merge, N={SIZE:,}, K={CLASSES}, 2 processes (s)", "", max(first, second), "2")
    share = weight / (SIZE * CLASSES * 4)
    figures.add("its checkpoint / N*K*4 bytes", f"{weight / 1e6:.1f} MB", share, "1.05")

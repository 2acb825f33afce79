import subprocess
import sys

import pytest
import torch

from medbolt.noisy.losses.determinant_mutual_information import DeterminantMutualInformationLoss

LOGITS = torch.randn(24, 3, generator=torch.Generator().manual_seed(0))
TARGET = torch.arange(24) % 3


def test_equals_the_formula():
    p = LOGITS.double().softmax(1)
    u = torch.zeros(3, 3, dtype=torch.float64)
    for row, y in zip(p, TARGET, strict=True):
        u[y] += row / 24
    det = u[0, 0] * (u[1, 1] * u[2, 2] - u[1, 2] * u[2, 1])
    det = det - u[0, 1] * (u[1, 0] * u[2, 2] - u[1, 2] * u[2, 0]) + u[0, 2] * (u[1, 0] * u[2, 1] - u[1, 1] * u[2, 0])
    expected = -(27 * det.abs() + 1e-3).log()
    assert DeterminantMutualInformationLoss()(LOGITS, TARGET).item() == pytest.approx(expected.item(), rel=1e-4)


def test_class_dependent_noise_only_shifts_it():
    """Soft labels are the noise in expectation: the loss moves by -log |det T|, the gradient not at all."""
    transition = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6]], dtype=torch.float64)
    clean = torch.nn.functional.one_hot(TARGET, 3).double()
    values, gradients = [], []
    for labels in (clean, clean @ transition):
        logits = LOGITS.double().requires_grad_()
        loss = DeterminantMutualInformationLoss(epsilon=1e-12)(logits, labels)
        loss.backward()
        values.append(loss.detach())
        gradients.append(logits.grad)
    torch.testing.assert_close(values[1] - values[0], -torch.linalg.det(transition).log())
    torch.testing.assert_close(gradients[1], gradients[0])


def test_a_perfect_prediction_of_ten_balanced_classes_has_a_gradient():
    logits = (3 * torch.eye(10)).repeat(4, 1).requires_grad_()
    DeterminantMutualInformationLoss()(logits, torch.arange(10).repeat(4)).backward()
    assert logits.grad.abs().max() > 1e-3


def test_a_missing_class_teaches_nothing():
    logits = LOGITS[:2].clone().requires_grad_()
    loss = DeterminantMutualInformationLoss()(logits, torch.tensor([0, 1]))
    loss.backward()
    assert loss.item() == pytest.approx(6.9078, abs=1e-2)
    assert logits.grad.abs().max() < 1e-3


def test_refuses_arguments_out_of_range():
    with pytest.raises(ValueError, match="epsilon"):
        DeterminantMutualInformationLoss(epsilon=0)


_ONE_PROCESS = """
import sys
import torch
import torch.distributed as dist
from medbolt.noisy import DeterminantMutualInformationLoss

rank, store, data = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=2)
logits, target = torch.load(data, weights_only=True)
logits = logits[rank::2].clone().requires_grad_()
loss = DeterminantMutualInformationLoss()
loss(logits, target[rank::2]).backward()
torch.save(logits.grad / 2, f"{data}.{rank}")  # DDP takes the mean over processes
loss.eval()
if rank == 0:  # evaluation may have fewer batches on one process
    loss(logits, target[rank::2])
dist.destroy_process_group()
"""


@pytest.mark.ddp
@pytest.mark.slow
def test_two_processes_learn_what_one_does(tmp_path):
    data = tmp_path / "data.pt"
    torch.save((LOGITS, TARGET), data)
    command = [sys.executable, "-c", _ONE_PROCESS]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path / "store"), str(data)]) for rank in (0, 1)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    logits = LOGITS.clone().requires_grad_()
    DeterminantMutualInformationLoss()(logits, TARGET).backward()
    for rank in (0, 1):
        torch.testing.assert_close(torch.load(f"{data}.{rank}", weights_only=True), logits.grad[rank::2])

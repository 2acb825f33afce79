import pytest
import torch

from medbolt.noisy import confident_joint, estimate_noise_rate


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
def test_finds_the_rate_of_symmetric_noise(rate):
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(8000) % 4
    wrong = (true + torch.randint(1, 4, (8000,), generator=generator)) % 4
    labels = torch.where(torch.rand(8000, generator=generator) < rate, wrong, true)
    p = (3 * torch.nn.functional.one_hot(true, 4) + torch.rand(8000, 4, generator=generator)).softmax(1)
    found = estimate_noise_rate(labels, p)
    assert found == pytest.approx(rate, abs=0.03)
    assert found == confident_joint(labels, p).noise_rate

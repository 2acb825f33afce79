import pytest
import torch

from medbolt.core.errors import UserError
from medbolt.core.randomness import derive_seed
from medbolt.noisy.noise.base import Labelled, flip_rates
from medbolt.noisy.noise.instance_dependent import InstanceDependentNoise

TARGETS = torch.arange(60) % 3
NAMES = [f"picture {i}" for i in range(60)]


def one_by_one(noise, samples):
    """The probabilities by a plain loop over samples."""
    rates, rows = flip_rates(samples, noise.rate, noise.std), []
    generator = torch.Generator().manual_seed(derive_seed(samples.seed, 2))
    projection = torch.randn(3, 3 * 8 * 8, 3, generator=generator, dtype=torch.float64)
    for picture, label, rate in zip(samples.images, samples.targets, rates, strict=True):
        places = [(int((i + 0.5) * 20 / 8), int((j + 0.5) * 24 / 8)) for i in range(8) for j in range(8)]
        x = torch.stack([picture[channel, i, j] for channel in range(3) for i, j in places]).double()
        x = (x - x.mean()) / x.std(correction=0)
        score = x @ projection[label] / (noise.temperature * 192**0.5)
        score[label] = -torch.inf
        row = rate * score.softmax(0)
        row[label] = 1 - rate
        rows.append(row)
    return torch.stack(rows)


def test_equals_the_loop_over_samples(pictures):
    noise = InstanceDependentNoise(0.4, grid=8, chunk_size=7)
    samples = Labelled(TARGETS, 3, NAMES, 5, pictures)
    torch.testing.assert_close(noise.probabilities(samples), one_by_one(noise, samples), rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("grid", [8, None])
def test_chunks_order_and_subset_do_not_matter(pictures, grid):
    noisy = InstanceDependentNoise(0.4, grid=grid)(TARGETS, 3, 1, NAMES, pictures)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))[:40]
    chunked = InstanceDependentNoise(0.4, grid=grid, chunk_size=7)
    again = chunked(TARGETS[order], 3, 1, [NAMES[i] for i in order], pictures[order])
    assert (again == noisy[order]).all()
    assert (noisy != TARGETS).any()


def test_the_wrong_label_depends_on_the_picture_more_at_low_temperature(pictures):
    samples = Labelled(torch.zeros(60, dtype=torch.int64), 3, NAMES, 0, pictures)
    sharp, flat = (InstanceDependentNoise(0.4, temperature=t, grid=8).probabilities(samples) for t in (0.01, 100))
    share = [p[:, 1] / (p[:, 1] + p[:, 2]) for p in (sharp, flat)]
    assert ((share[0] < 0.05) | (share[0] > 0.95)).double().mean() > 0.8
    assert (share[0] > 0.5).any()
    assert (share[0] < 0.5).any()
    assert (share[1] - 0.5).abs().max() < 0.05


def test_the_rate_is_kept_on_average():
    pictures, targets = torch.randint(0, 256, (2000, 3, 8, 8), dtype=torch.uint8), torch.arange(2000) % 4
    noisy = InstanceDependentNoise(0.3, grid=4)(targets, 4, images=pictures)
    assert (noisy != targets).double().mean().item() == pytest.approx(0.3, abs=0.04)


def test_a_rate_of_zero_flips_nothing(pictures):
    many = pictures.repeat(40, 1, 1, 1)
    targets = torch.arange(len(many)) % 3
    assert torch.equal(InstanceDependentNoise(0.0, grid=4)(targets, 3, images=many), targets)


def test_pictures_of_several_sizes_and_blank_ones_work():
    pictures = [torch.zeros(3, 9, 12, dtype=torch.uint8), torch.full((3, 40, 30), 7, dtype=torch.uint8)]
    assert InstanceDependentNoise(0.4)(torch.tensor([0, 1]), 3, images=pictures).shape == (2,)


@pytest.mark.parametrize("options", [{"rate": 2}, {"std": 0}, {"temperature": 0}, {"grid": 0}, {"chunk_size": 0}])
def test_refuses_arguments_out_of_range(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        InstanceDependentNoise(**{"rate": 0.4, **options})


def test_says_that_it_needs_images():
    with pytest.raises(UserError, match="images"):
        InstanceDependentNoise(0.4)(TARGETS, 3)

import numpy as np
import pytest
import torch
from torch import nn

from medbolt.noisy.dividemix.mixmatch import mixed, predictions, ramped, sharpened, targets


def random_probabilities(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape))).softmax(-1)


@pytest.mark.parametrize("soft", [False, True])
def test_targets_are_refined_guessed_and_sharpened_sample_by_sample(soft):
    own, peer = random_probabilities(6, 3), random_probabilities(6, 3).flip(0)
    label = random_probabilities(6, 3).flip(1) if soft else torch.tensor([0, 1, 2, 0, 1, 2])
    clean, labelled = torch.linspace(0.05, 0.95, 6), torch.tensor([0, 1, 0, 1, 1, 0]).bool()
    found = targets(own, (own + peer) / 2, label, clean, labelled, temperature=0.5)
    for i in range(6):
        given = label[i] if soft else torch.eye(3)[label[i]]
        w = clean[i]
        p = w * given + (1 - w) * own[i] if labelled[i] else (own[i] + peer[i]) / 2
        torch.testing.assert_close(found[i], p**2 / (p**2).sum())


def test_sharpening_survives_zeros_and_low_temperatures():
    found = sharpened(torch.tensor([[1.0, 0.0], [0.6, 0.4]]), temperature=1e-3)
    torch.testing.assert_close(found, torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    p = random_probabilities(4, 3)
    torch.testing.assert_close(sharpened(p, temperature=1.0), p)


def test_predictions_are_means_over_views_in_evaluation_mode():
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12), nn.Dropout(0.5), nn.Linear(12, 3))
    model[1].running_mean.fill_(0.5)
    model[3].eval()  # a frozen part, which must stay as it is
    views = torch.randn(4, 2, 3, 2, 2)
    found = predictions([model], views)
    assert model[1].running_mean.tolist() == [0.5] * 12
    assert [part.training for part in (model, *model)] == [True, True, True, True, False]
    model.eval()
    expected = (model(views[:, 0]).softmax(1) + model(views[:, 1]).softmax(1)) / 2
    torch.testing.assert_close(found[0], expected)
    assert not found.requires_grad


def test_images_and_targets_are_mixed_alike_and_mostly_their_own():
    images, target = torch.eye(5)[:, :, None, None], torch.eye(5)
    for seed in range(20):
        picture, soft = mixed(images, target, 4.0, np.random.default_rng(seed))
        torch.testing.assert_close(picture[:, :, 0, 0], soft)
        assert (soft.diag() >= 0.5).all()
        torch.testing.assert_close(soft.sum(0), torch.ones(5))  # everybody is a partner once
    assert not torch.equal(soft, target)


def test_one_image_is_mixed_with_itself():
    image, target = torch.rand(1, 3, 2, 2), torch.tensor([[0.0, 1.0]])
    found = mixed(image, target, 4.0, np.random.default_rng(0))
    torch.testing.assert_close(found, (image, target))


def test_the_ramp_is_linear_between_its_ends():
    assert [ramped(2.0, epoch, 5, 4) for epoch in (0, 5, 6, 7.5, 9, 20)] == [0, 0, 0.5, 1.25, 2, 2]
    assert ramped(2.0, 5, 5, 0) == 2

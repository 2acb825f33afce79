import torch

from medbolt.longtail import CenterLoss


def test_equals_half_the_squared_distance_sample_by_sample(logits, target):
    loss = CenterLoss(5, 5, reduction="none").double()
    expected = [((x - loss.centers[y]) ** 2).sum() / 2 for x, y in zip(logits, target, strict=True)]
    torch.testing.assert_close(loss(logits, target), torch.stack(expected))


def test_an_optimizer_that_holds_the_centers_moves_them_to_the_class_means():
    torch.manual_seed(0)
    target = torch.arange(3).repeat(20)
    features = torch.randn(60, 2) + target[:, None]
    loss = CenterLoss(3, 2)
    optimizer = torch.optim.SGD(loss.parameters(), 1.0)
    for _ in range(60):
        optimizer.zero_grad()
        loss(features, target).backward()
        optimizer.step()
    means = torch.stack([features[target == c].mean(0) for c in range(3)])
    torch.testing.assert_close(loss.centers.detach(), means)

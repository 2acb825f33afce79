import torch
from torch.nn.functional import cross_entropy

from medbolt.noisy import MixUp


def test_the_loss_is_that_of_the_mixtures_with_both_labels(linear, module, random_data, fit, monkeypatch):
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda self, shape: torch.full(shape, 0.3))
    monkeypatch.setattr(torch, "randperm", lambda size, **options: torch.arange(size).roll(1))
    data = random_data(4)
    data.shuffle = False
    trained = module(linear())
    fit(trained, data, MixUp())
    network, x, y = linear(), data.columns["image"], data.columns["target"]
    losses = []
    for i in range(4):
        logits = network(0.3 * x[i] + 0.7 * x[i - 1])
        losses.append(0.3 * cross_entropy(logits, y[i]) + 0.7 * cross_entropy(logits, y[i - 1]))
    torch.testing.assert_close(trained.losses[0], torch.stack(losses).mean().detach())


def test_wrong_labels_are_harder_to_learn(accuracy, cross_entropy_accuracy):
    assert accuracy(MixUp(alpha=8.0)) > cross_entropy_accuracy + 0.05


def test_gradient_is_finite_under_bfloat16_for_a_batch_of_one_and_one_class(linear, module, random_data, fit):
    for size, options in ((10, {"precision": "bf16-mixed"}), (1, {})):
        trained = module(linear())
        fit(trained, random_data(size, target=torch.zeros(size, dtype=torch.int64)), MixUp(), **options)
        assert torch.stack(trained.losses).isfinite().all()
        assert all(p.isfinite().all() for p in trained.parameters())


def test_works_on_a_foreign_module_with_a_functional_loss(linear, module, functional_module, random_data, fit):
    first, second = functional_module(linear()), module(linear())
    fit(first, random_data(), MixUp(criterion="functional"))
    fit(second, random_data(), MixUp())
    torch.testing.assert_close(first.losses, second.losses)
